"""Rows of many parts brought together by hash, in bounded memory: buckets on disk, each sorted by itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

import numpy as np

ROWS_IN_MEMORY = 4_000_000
"""Rows sorted at once; more are spread over buckets by their hash."""


def sorted_buckets(
    read: Callable[[int], np.ndarray], num_parts: int, num_rows: int, *, rows_in_memory: int = ROWS_IN_MEMORY
) -> Iterator[np.ndarray]:
    """Buckets of rows, each sorted by (hash, row); rows of one hash are all in one bucket.

    Args:
        read: part index -> structured array with the fields `hash` (uint64) and `row` (int64), and any others. Called
            twice for each part where there is more than one bucket.
        num_parts: parts to read.
        num_rows: rows in all of them.
        rows_in_memory: about how many rows a bucket may hold.
    Yields:
        Structured arrays like those of `read`.
    """
    num_buckets = max(1, -(-num_rows // rows_in_memory))
    if num_buckets == 1:
        parts = [read(index) for index in range(num_parts)]
        if parts:
            yield np.sort(np.concatenate(parts), order=["hash", "row"])
        return
    sizes = np.zeros(num_buckets, dtype=np.int64)
    for index in range(num_parts):
        sizes += np.bincount(_bucket(read(index), num_buckets), minlength=num_buckets)
    ends = np.cumsum(sizes)
    at = ends - sizes
    with tempfile.TemporaryFile() as shared:
        dtype = None
        for index in range(num_parts):
            rows = read(index)
            dtype = rows.dtype
            buckets = _bucket(rows, num_buckets)
            order = np.argsort(buckets, kind="stable")
            rows, found = rows[order], np.bincount(buckets, minlength=num_buckets)
            first = 0
            for bucket in np.flatnonzero(found):
                shared.seek(int(at[bucket]) * rows.itemsize)
                shared.write(rows[first : first + found[bucket]].tobytes())
                first += found[bucket]
                at[bucket] += found[bucket]
        for end, size in zip(ends, sizes, strict=True):
            if size and dtype is not None:
                shared.seek(int(end - size) * dtype.itemsize)
                yield np.sort(
                    np.frombuffer(shared.read(int(size) * dtype.itemsize), dtype=dtype), order=["hash", "row"]
                )


def _bucket(rows: np.ndarray, num_buckets: int) -> np.ndarray:
    return ((rows["hash"] >> np.uint64(32)) % np.uint64(num_buckets)).astype(np.int64)
