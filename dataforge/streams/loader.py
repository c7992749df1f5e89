"""What a training job imports: batches of rows from a folder or from a server, bit for bit the same.

    with Loader("workspace/rows/web@5be1f0c2a934", rank=rank, world_size=world_size, global_batch=512) as loader:
        for batch in loader:
            train(batch.token_ids[:, :-1], batch.token_ids[:, 1:])

Works with NumPy alone. A loader holds one thread and no process, lock file or shared memory. It may be pickled (spawned
workers open the source again at its cursor) and, after `fork`, the child goes on with a thread of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dataforge.errors import ConfigError, PastTheEnd, StreamError
from dataforge.registry import unknown
from dataforge.streams.batches import DTYPES, Batch, Source
from dataforge.streams.cursor import Cursor
from dataforge.streams.local import LocalSource
from dataforge.streams.prefetch import Prefetcher
from dataforge.streams.ranks import Share
from dataforge.streams.remote import RemoteConfig, RemoteSource


class Loader:
    """Batches of one rank, in plan order, from a cursor on.

    Step by step, `global_batch` rows are shared by `world_size` ranks: rank r reads rows
    [c + ⌊rG/W⌋, c + ⌊(r+1)G/W⌋). The last step may be short; a rank that finds nothing in it gets a batch of 0 rows, so
    every rank sees the same number of steps.

    Args:
        source: a rows artifact (or its folder), or `http(s)://host:port/v1/rows/{id}`.
        rank, world_size: which share is this one's. Ranks that hold the same data (tensor, pipeline) give the same.
        global_batch: rows of a step, over all ranks.
        cursor: row at which the first step begins.
        dtype: of `token_ids`: "int64", "int32", "uint32", or "uint16" where the rows have that.
        api_key: sent as `Authorization: Bearer`; for URLs only.
        steps: stop after so many; None goes on to the last row.
        prefetch_bytes: batches that are read ahead hold at most this much.
        stall_timeout_s: how long to wait for a batch before giving up.
        remote: timeouts, retries and window size; for URLs only.
    Raises:
        PastTheEnd: the cursor or the last of `steps` lies past the last row; raised here, before training starts.
        ConfigError, ArtifactNotFound, FormatError, ChecksumMismatch, AccessDenied, StreamError: as they say.
    """

    def __init__(
        self,
        source: Any,
        *,
        rank: int = 0,
        world_size: int = 1,
        global_batch: int,
        cursor: int = 0,
        dtype: str = "int64",
        api_key: str | None = None,
        steps: int | None = None,
        prefetch_bytes: int = 64 << 20,
        stall_timeout_s: float = 900.0,
        remote: RemoteConfig | None = None,
    ) -> None:
        self._prefetcher: Prefetcher | None = None
        self._closed = False
        self._share = Share(rank, world_size, global_batch)
        self._dtype = _dtype(dtype)
        self._prefetch_bytes, self._stall_timeout_s = prefetch_bytes, stall_timeout_s
        self._opening = (source, api_key, remote)
        self._source = _open(*self._opening)
        if self._dtype.itemsize < self._source.dtype.itemsize:
            self._source.close()
            raise ConfigError(f"ids of type {self._source.dtype.name} do not fit {dtype}", hint="use int64 or int32")
        try:
            self._place = _beginning(self._source).at(cursor, self._source.where)
            self._end = self._last_row(steps)
        except PastTheEnd:
            self._source.close()
            raise
        self._batches: Iterator[Batch] = iter(())
        self._process = os.getpid()

    def _last_row(self, steps: int | None) -> int:
        if steps is None:
            return self.num_rows
        left = self._share.steps_left(self.cursor, self.num_rows)
        if steps < 0 or steps > left:
            raise PastTheEnd(
                f"{steps:,} steps of {self._share.global_batch:,} rows from row {self.cursor:,} on were asked for, "
                f"there are {self.num_rows:,} rows",
                where=self._source.where,
                hint=f"at most {left:,} steps are left; plan more draws, or lower the number of steps",
            )
        return min(self.num_rows, self.cursor + steps * self._share.global_batch)

    # -- what it holds

    @property
    def num_rows(self) -> int:
        """Rows of the source, over all ranks."""
        return self._source.num_rows

    @property
    def row_length(self) -> int:
        """L: `token_ids` has L+1 columns."""
        return self._source.row_length

    @property
    def vocab_size(self) -> int:
        """Every token id is below it."""
        return self._source.vocab_size

    @property
    def cursor(self) -> int:
        """Row at which the next step begins."""
        return self._place.cursor

    def __len__(self) -> int:
        """Steps still to come."""
        return max(0, self._share.steps_left(self.cursor, self._end))

    # -- going on

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches, None)
        if batch is None or self._process != os.getpid():
            batch = self._refill()
        self._place = Cursor(self._place.rows, self._place.row_length, self._place.num_rows, batch.cursor)
        return batch

    def _refill(self) -> Batch:
        if self._closed:
            raise StreamError("the loader is closed", where=self._source.where, hint="open another one at its cursor")
        if self._process != os.getpid():  # after a fork the thread is the parent's; connections are not shared
            self._reopen()
        if self.cursor >= self._end:
            self._stop()
            raise StopIteration
        if self._prefetcher is None:
            stream = self._source.stream(self.cursor, self._end, self._share, self._dtype)
            self._prefetcher = Prefetcher(
                stream,
                budget_bytes=self._prefetch_bytes,
                stall_timeout_s=self._stall_timeout_s,
                where=self._source.where,
            )
        try:
            chunk = self._prefetcher.next_chunk()
        except BaseException:
            self._stop()  # asked again, it goes on at the cursor
            raise
        if chunk is None:
            self._stop()
            raise StreamError(f"the stream ended at row {self.cursor:,} of {self._end:,}", where=self._source.where)
        self._batches = chunk.batches()
        return next(self._batches)

    def regroup(
        self, *, rank: int | None = None, world_size: int | None = None, global_batch: int | None = None
    ) -> None:
        """Go on from the cursor with another rank, world size or global batch; what is not given stays."""
        told, now = (rank, world_size, global_batch), self._share
        self._share = Share(*(old if new is None else new for new, old in zip(told, _values(now), strict=True)))
        self._stop()

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: plain JSON, at most 512 bytes, the same on every rank.

        It moves when a batch is handed out, so it belongs to a checkpoint taken after that batch was trained on.
        """
        return self._place.to_json()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was saved, whatever the world size and global batch were then.

        With `steps`, the last row stays the one that was fixed when the loader was opened.

        Raises:
            StreamError: the state is of other rows, or no state at all.
            PastTheEnd: its cursor lies past the last row, or past the last of `steps`.
        """
        place = self._place.moved(state, self._source.where)
        if place.cursor > self._end:
            raise PastTheEnd(
                f"the state stands at row {place.cursor:,}, this loader ends at row {self._end:,}",
                where=self._source.where,
                hint="raise `steps`, or start anew",
            )
        self._place = place
        self._stop()

    # -- ending

    def _stop(self) -> None:
        self._batches = iter(())
        prefetcher, self._prefetcher = self._prefetcher, None
        if prefetcher is not None and self._process == os.getpid():
            prefetcher.close()

    def close(self) -> None:
        """Stop the thread, close connections and let go of the maps."""
        if not self._closed:
            self._closed = True
            self._stop()
            self._source.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_opening", "_share", "_dtype", "_prefetch_bytes", "_stall_timeout_s", "_place", "_end", "_closed")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reopen()

    def _reopen(self) -> None:
        self._prefetcher, self._batches, self._process = None, iter(()), os.getpid()
        self._source = _open(*self._opening)
        self._place = _beginning(self._source).moved(self._place.to_json(), self._source.where)

    def __del__(self) -> None:
        if hasattr(self, "_source"):
            self.close()


def _beginning(source: Source) -> Cursor:
    return Cursor(source.digest, source.row_length, source.num_rows, 0)


def _values(share: Share) -> tuple[int, int, int]:
    return share.rank, share.world_size, share.global_batch


def _dtype(name: Any) -> np.dtype:
    wanted = np.dtype(name).name if not isinstance(name, str) else name
    if wanted not in DTYPES:
        raise unknown("token type", wanted, DTYPES)
    return np.dtype(wanted)


def _open(source: Any, api_key: str | None, remote: RemoteConfig | None) -> Source:
    text = str(source) if isinstance(source, str | Path) else None
    if text is not None and "://" in text:
        return RemoteSource(text, api_key=api_key, config=remote or RemoteConfig())
    return LocalSource(source)
