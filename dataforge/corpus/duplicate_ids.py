"""Two documents with one id are refused, with both places. In bounded memory: ids are bucketed by hash on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import xxhash

from dataforge.errors import DuplicateId

_IN_MEMORY = 4_000_000
"""Hashes sorted at once (16 bytes each); beyond that they are spread over files by their top bits."""


def refuse_duplicate_ids(paths: Sequence[Path]) -> None:
    """Raise DuplicateId if two rows of these root parts share an id.

    Candidates are found by a 64-bit hash of the id, then compared by the id itself.
    """
    rows = [pq.read_metadata(path).num_rows for path in paths]
    starts = np.concatenate([[0], np.cumsum(rows)])
    num_buckets = max(1, -(-int(starts[-1]) // _IN_MEMORY))
    with tempfile.TemporaryFile() as shared:
        if num_buckets == 1:
            pairs = np.concatenate([_hashes(path, first) for path, first in zip(paths, starts)] or [_empty()])
            _check(pairs, paths, starts)
            return
        # Pass 1 counts each bucket's rows, pass 2 writes them to their place in one file, then each bucket is sorted.
        sizes = np.zeros(num_buckets, dtype=np.int64)
        for path, first in zip(paths, starts):
            sizes += np.bincount(_bucket(_hashes(path, first)["hash"], num_buckets), minlength=num_buckets)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        at = ends[:-1].copy()
        for path, first in zip(paths, starts):
            pairs = _hashes(path, first)
            buckets = _bucket(pairs["hash"], num_buckets)
            for bucket in np.unique(buckets):
                mine = pairs[buckets == bucket]
                shared.seek(int(at[bucket]) * mine.itemsize)
                shared.write(mine.tobytes())
                at[bucket] += len(mine)
        for bucket in range(num_buckets):
            shared.seek(int(ends[bucket]) * _PAIR.itemsize)
            _check(np.frombuffer(shared.read(int(sizes[bucket]) * _PAIR.itemsize), dtype=_PAIR), paths, starts)


_PAIR = np.dtype([("hash", "<u8"), ("row", "<i8")])


def _empty() -> np.ndarray:
    return np.zeros(0, dtype=_PAIR)


def _bucket(hashes: np.ndarray, num_buckets: int) -> np.ndarray:
    return ((hashes >> np.uint64(32)) % np.uint64(num_buckets)).astype(np.int64)


def _hashes(path: Path, first: int) -> np.ndarray:
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(columns=["id"], use_threads=False)
        ids = [told for batch in batches for told in batch.column(0).to_pylist()]
    pairs = np.empty(len(ids), dtype=_PAIR)
    pairs["hash"] = [xxhash.xxh3_64_intdigest(told.encode()) for told in ids]
    pairs["row"] = np.arange(first, first + len(ids))
    return pairs


def _check(pairs: np.ndarray, paths: Sequence[Path], starts: np.ndarray) -> None:
    pairs = np.sort(pairs, order=["hash", "row"])
    same = np.flatnonzero(pairs["hash"][1:] == pairs["hash"][:-1])
    for index in same:
        first, second = (_row(int(pairs["row"][index + step]), paths, starts) for step in (0, 1))
        if first[0] == second[0]:
            raise DuplicateId(
                f"two documents have the id {first[0]!r}",
                where=f"{first[1]}:{first[2]} and {second[1]}:{second[2]}",
                hint="make ids unique, or map another field with `--field id=NAME` (rows without ids get them)",
            )


def _row(row: int, paths: Sequence[Path], starts: np.ndarray) -> tuple[str, str, int]:
    part = int(np.searchsorted(starts, row, side="right")) - 1
    table = (
        pq.read_table(paths[part], columns=["id", "file", "position"]).slice(row - int(starts[part]), 1).to_pylist()[0]
    )
    return table["id"], table["file"], table["position"]
