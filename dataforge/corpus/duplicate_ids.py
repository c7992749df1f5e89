"""Two documents with one id are refused, with both places."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dataforge.corpus.sort_by_hash import ROWS_IN_MEMORY, sorted_buckets
from dataforge.errors import DuplicateId

_ROW = np.dtype([("hash", "<u8"), ("row", "<i8")])


def refuse_duplicate_ids(paths: Sequence[Path], *, rows_in_memory: int = ROWS_IN_MEMORY) -> None:
    """Raise DuplicateId if two rows of these root parts share an id.

    Candidates are found by a 64-bit hash of the id (BLAKE2b), then compared by the id itself.
    """
    starts = np.concatenate([[0], np.cumsum([pq.read_metadata(path).num_rows for path in paths])]).astype(np.int64)

    def read(index: int) -> np.ndarray:
        return _hashes(paths[index], int(starts[index]))

    for rows in sorted_buckets(read, len(paths), int(starts[-1]), rows_in_memory=rows_in_memory):
        for index in np.flatnonzero(rows["hash"][1:] == rows["hash"][:-1]):
            first, second = (_place(int(rows["row"][index + step]), paths, starts) for step in (0, 1))
            if first[0] == second[0]:
                raise DuplicateId(
                    f"two documents have the id {first[0]!r}",
                    where=f"{first[1]}:{first[2]} and {second[1]}:{second[2]}",
                    hint="make ids unique, or map another field with `--field id=NAME` (rows without ids get them)",
                )


def _hash(document_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "little")


def _hashes(path: Path, first: int) -> np.ndarray:
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(columns=["id"], use_threads=False)
        ids = [told for batch in batches for told in batch.column(0).to_pylist()]
    rows = np.empty(len(ids), dtype=_ROW)
    rows["hash"] = [_hash(told) for told in ids]
    rows["row"] = np.arange(first, first + len(ids))
    return rows


def _place(row: int, paths: Sequence[Path], starts: np.ndarray) -> tuple[str, str, int]:
    part = int(np.searchsorted(starts, row, side="right")) - 1
    table = pq.read_table(paths[part], columns=["id", "file", "position"]).slice(row - int(starts[part]), 1)
    told = table.to_pylist()[0]
    return told["id"], told["file"], told["position"]
