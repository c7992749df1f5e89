"""Rows from mapped shards: the direct way, nothing between the disk and the batch but one gather."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataforge.rows.reader import Rows
from dataforge.streams.batches import Buffers, Chunk
from dataforge.streams.ranks import Share

CHUNK_BYTES = 8 << 20
"""Token bytes that are gathered at once: enough to make the cost of each call small, few enough to stay in cache."""


class LocalSource:
    """A rows artifact's folder as a source of batches."""

    def __init__(self, folder: Path, rows: Rows | None = None) -> None:
        self.rows = rows or Rows(folder)
        self.where = self.rows.artifact.ref
        self.digest, self.num_rows = self.rows.digest, self.rows.num_rows
        self.row_length, self.vocab_size = self.rows.row_length, self.rows.shards.vocab_size
        self.dtype = self.rows.dtype

    def stream(self, cursor: int, end: int, share: Share, dtype: np.dtype) -> LocalStream:
        """The steps from row `cursor` on."""
        return LocalStream(self.rows, cursor, end, share, dtype)

    def close(self) -> None:
        """Let go of the maps."""
        self.rows.close()


class LocalStream:
    """Chunks of one rank's rows. The first holds one step, so that it comes soon; later ones grow to `CHUNK_BYTES`."""

    def __init__(self, rows: Rows, cursor: int, end: int, share: Share, dtype: np.dtype) -> None:
        self._rows, self._cursor, self._end, self._share, self._dtype = rows, cursor, end, share, dtype
        step_bytes = (share.global_batch / share.world_size) * (rows.row_length + 1) * dtype.itemsize
        self._most_steps = max(1, int(CHUNK_BYTES / step_bytes))
        self._steps = 1
        self._buffers = Buffers()
        self._aborted = False

    def __next__(self) -> Chunk:
        left = self._share.steps_left(self._cursor, self._end)
        if left <= 0 or self._aborted:
            raise StopIteration
        steps = self._share.steps(self._cursor, min(left, self._steps), self._end)
        wanted = steps.rows()
        spans = self._rows.spans(wanted)
        token_ids = self._buffers.take((wanted.size, self._rows.row_length + 1), self._dtype)
        self._rows.gather(spans, token_ids.reshape(-1))
        self._cursor = int(steps.next_cursor[-1])
        self._steps = min(2 * self._steps, self._most_steps)
        return Chunk(token_ids, self._rows.segments_of(wanted, spans), steps)

    def abort(self) -> None:
        """End with the next call."""
        self._aborted = True
