"""Batches as a training loop gets them, and the larger chunks they are cut from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from dataforge.streams.ranks import Share, Steps

DTYPES = ("int64", "int32", "uint32", "uint16")


class Batch(NamedTuple):
    """One rank's rows of one step."""

    token_ids: np.ndarray
    """Shape (B, L+1): inputs are `[:, :-1]`, labels `[:, 1:]`. B is 0 where a short last step leaves nothing."""
    segments: np.ndarray
    """int64 [n, 4]: row (counted over all rows), document number, offset in the document, length. Lengths of a row sum
    to L+1; a document is attended to from its segment's first token on."""
    cursor: int
    """Where the next step begins: what `state_dict()` holds once this batch is out."""


@dataclass(frozen=True)
class Chunk:
    """Several steps of one rank in one piece of memory."""

    token_ids: np.ndarray
    """Shape (rows, L+1)."""
    segments: np.ndarray
    """int64 [n, 4]."""
    steps: Steps

    @property
    def size_bytes(self) -> int:
        return self.token_ids.nbytes + self.segments.nbytes

    def batches(self) -> Iterator[Batch]:
        """The steps one by one: views, nothing is copied."""
        steps = self.steps
        row = np.concatenate([[0], np.cumsum(steps.count)]).tolist()
        begin = np.searchsorted(self.segments[:, 0], steps.first).tolist()
        end = np.searchsorted(self.segments[:, 0], steps.first + steps.count).tolist()
        for i, cursor in enumerate(steps.next_cursor.tolist()):
            yield Batch(self.token_ids[row[i] : row[i + 1]], self.segments[begin[i] : end[i]], cursor)


class Stream(Protocol):
    """Chunks in order, from one place on. One thread reads it; `abort` may come from another."""

    def __next__(self) -> Chunk: ...

    def abort(self) -> None:
        """Let a read that is under way, and all later ones, end soon."""


class Source(Protocol):
    """Where rows come from: the same rows, bit for bit, whatever the way."""

    where: str
    digest: str
    num_rows: int
    row_length: int
    vocab_size: int
    dtype: np.dtype

    def stream(self, cursor: int, end: int, share: Share, dtype: np.dtype) -> Stream:
        """The steps from row `cursor` on; rows from `end` on are as if they were not there."""

    def close(self) -> None: ...


class Buffers:
    """Memory for chunks that is used again once nobody looks at it any more.

    Fresh pages cost more than the copy that fills them. A buffer is taken again only when no array, tensor or memory
    view refers to it, so a caller may keep batches as long as it likes. Interpreters without a global lock count
    references in another way; there every chunk gets fresh memory.
    """

    def __init__(self, kept: int = 12) -> None:
        counted = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
        self._kept = kept if counted else 0
        self._held: list[np.ndarray] = [np.empty(1, np.uint8)]
        self._unused = sys.getrefcount(self._held[0])  # what a buffer counts that only this list holds
        self._held.clear()

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array with undefined contents."""
        size = int(np.prod(shape)) * dtype.itemsize
        for index in range(len(self._held)):
            if sys.getrefcount(self._held[index]) == self._unused and self._held[index].nbytes >= size:
                return self._held[index][:size].view(dtype).reshape(shape)
        fresh = np.empty(max(size, 1), np.uint8)
        if self._kept:
            self._held = [*self._held[-self._kept + 1 :], fresh]
        return fresh[:size].view(dtype).reshape(shape)
