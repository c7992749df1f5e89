"""Where a reader stands: one row number and the digest of the rows, the same on every rank.

The state is plain JSON of at most 512 bytes. It moves when a batch is handed out, never when one is fetched ahead, and
says nothing about ranks or batches: save it once, go on with any world size and any global batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataforge.errors import PastTheEnd, StreamError

VERSION = 1
_NAMES = ("version", "rows", "row_length", "num_rows", "cursor")


@dataclass(frozen=True)
class Cursor:
    """A place in the rows of one artifact."""

    rows: str
    """Content digest of the rows, 64 hex."""
    row_length: int
    num_rows: int
    cursor: int
    """Number of the next row."""

    def to_json(self) -> dict[str, Any]:
        """The state as `state_dict` gives it."""
        return {
            "version": VERSION,
            "rows": self.rows,
            "row_length": self.row_length,
            "num_rows": self.num_rows,
            "cursor": self.cursor,
        }

    def moved(self, state: Any, where: str) -> Cursor:
        """This place's rows at the cursor of a saved state.

        Raises:
            StreamError: the state is malformed, of another version, or of other rows.
            PastTheEnd: its cursor is past the end.
        """
        sound = isinstance(state, Mapping) and set(state) == set(_NAMES)
        if not sound or not all(type(state[name]) is (str if name == "rows" else int) for name in _NAMES):
            raise StreamError(
                f"this is no loader state: it needs {', '.join(_NAMES)}",
                where=where,
                hint="give what `state_dict()` returned, unchanged",
            )
        if state["version"] != VERSION:
            raise StreamError(
                f"the state has version {state['version']}, this dataforge reads {VERSION}",
                where=where,
                hint="use the dataforge-lm that saved it, or a newer one",
            )
        if state["rows"] != self.rows:
            raise StreamError(
                f"the state is of {state['rows'][:12]} (length {state['row_length']:,}, {state['num_rows']:,} rows), "
                f"this source has {self.rows[:12]} (length {self.row_length:,}, {self.num_rows:,} rows)",
                where=where,
                hint="open the rows that the state was saved from, or start anew at `cursor=0`",
            )
        return self.at(state["cursor"], where)

    def at(self, cursor: int, where: str) -> Cursor:
        """This place's rows at another cursor. Raises PastTheEnd."""
        if not 0 <= cursor <= self.num_rows:
            raise PastTheEnd(
                f"cursor {cursor:,} is not among {self.num_rows:,} rows",
                where=where,
                hint=f"a cursor is between 0 and {self.num_rows:,}",
            )
        return Cursor(self.rows, self.row_length, self.num_rows, cursor)
