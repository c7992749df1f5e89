"""Who reads what: rank r of W at global batch G reads rows [c + ⌊rG/W⌋, c + ⌊(r+1)G/W⌋) of the step at cursor c.

The order of rows does not know about ranks, so W and G may change at every step. The last step may be short: what is
left is shared by the same rule, and a rank may find nothing in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataforge.errors import ConfigError

MAX_WORLD_SIZE = 1 << 16
MAX_GLOBAL_BATCH = 1 << 24


@dataclass(frozen=True)
class Share:
    """One rank's share of every step."""

    rank: int
    world_size: int
    global_batch: int

    def __post_init__(self) -> None:
        if not 1 <= self.world_size <= MAX_WORLD_SIZE:
            raise ConfigError(f"world_size must be between 1 and {MAX_WORLD_SIZE:,}, got {self.world_size}")
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank {self.rank} is not in a world of {self.world_size}")
        if not 1 <= self.global_batch <= MAX_GLOBAL_BATCH:
            raise ConfigError(f"global_batch must be between 1 and {MAX_GLOBAL_BATCH:,}, got {self.global_batch}")

    def steps_left(self, cursor: int, num_rows: int) -> int:
        """Steps from a cursor to the end, a short one at the end included.

        >>> Share(0, 1, 4).steps_left(0, 9)
        3
        """
        return -(-(num_rows - cursor) // self.global_batch)

    def steps(self, cursor: int, steps: int, num_rows: int) -> Steps:
        """What this rank reads in the steps from a cursor on; none of them may begin past the end.

        >>> told = Share(1, 2, 4).steps(cursor=2, steps=2, num_rows=9)
        >>> told.first.tolist(), told.count.tolist(), told.next_cursor.tolist()
        ([4, 7], [2, 2], [6, 9])
        """
        begin = cursor + self.global_batch * np.arange(steps, dtype=np.int64)
        end = np.minimum(begin + self.global_batch, num_rows)
        low = begin + self.rank * (end - begin) // self.world_size
        high = begin + (self.rank + 1) * (end - begin) // self.world_size
        return Steps(first=low, count=high - low, next_cursor=end)


@dataclass(frozen=True)
class Steps:
    """What one rank reads in consecutive steps; int64, one entry a step."""

    first: np.ndarray
    """First row."""
    count: np.ndarray
    """Rows; 0 where a short last step leaves nothing for this rank."""
    next_cursor: np.ndarray
    """Where the step after it begins."""

    @property
    def num_rows(self) -> int:
        return int(self.count.sum())

    def rows(self) -> np.ndarray:
        """All row numbers in order, int64.

        >>> Share(0, 2, 4).steps(0, 2, 8).rows().tolist()
        [0, 1, 4, 5]
        """
        before = np.cumsum(self.count) - self.count
        return np.repeat(self.first - before, self.count) + np.arange(self.num_rows, dtype=np.int64)
