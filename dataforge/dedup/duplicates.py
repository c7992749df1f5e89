"""Which document is a copy of which: one decision for the whole corpus, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataforge.corpus.sort_by_hash import ROWS_IN_MEMORY, sorted_buckets
from dataforge.stage import Inputs, Out, Part, PartOut
from dataforge.workspace import Artifact, Counts

SCHEMA = pa.schema([("number", pa.int64()), ("kept", pa.int64())])
"""A dropped document's number and that of the copy that is kept."""

_ROW = np.dtype([("hash", "<u8"), ("low", "<u8"), ("row", "<i8"), ("training", "?")])
_PAIR = np.dtype([("number", "<i8"), ("kept", "<i8")])


@dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    """No settings: where a held-out copy is there the first of them is kept, so nothing trained on is held out."""


@dataclass(frozen=True)
class FindDuplicates:
    """The stage: kind `duplicates`, a table for each part of the hashes: its dropped numbers, ascending."""

    config: DuplicatesConfig
    rows_in_memory: int = ROWS_IN_MEMORY
    kind = "duplicates"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        return []

    def open_worker(self, inputs: Inputs) -> None:
        return None

    def run_part(self, worker: None, part: Part, out: PartOut) -> Counts:
        raise AssertionError("all of this stage is in finish")

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        hashes: Artifact = inputs["hashes"]
        told = hashes.parts(".parquet")
        firsts = [_first_number(hashes.file(part["path"])) for part in told]
        num_rows = sum(part["rows"] for part in told)
        found = 0

        def read(index: int) -> np.ndarray:
            return _read(hashes.file(told[index]["path"]))

        with out.private_folder() as folder:
            for rows in sorted_buckets(read, len(told), num_rows, rows_in_memory=self.rows_in_memory):
                pairs = _dropped(rows)
                found += len(pairs)
                _spread(pairs, firsts, folder)
            for index, part in enumerate(told):
                spread = folder / str(index)
                pairs = np.fromfile(spread, dtype=_PAIR) if spread.is_file() else np.zeros(0, dtype=_PAIR)
                _write_pairs(out, part["path"], np.sort(pairs, order="number"))
        return Counts(extra={"duplicates": found})


def _write_pairs(out: Out, name: str, pairs: np.ndarray) -> None:
    columns = [np.ascontiguousarray(pairs["number"]), np.ascontiguousarray(pairs["kept"])]
    with out.write(name, rows=len(pairs)) as path:
        pq.write_table(pa.table(columns, schema=SCHEMA), path, compression="zstd")


def _dropped(rows: np.ndarray) -> np.ndarray:
    """Of rows sorted by (hash, row): each copy that is not kept, with the one that is."""
    rows = np.sort(rows, order=["hash", "low", "training", "row"])  # held-out (training = False) first
    same = (rows["hash"][1:] == rows["hash"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    kept = np.repeat(rows["row"][starts], np.diff(np.concatenate([starts, [len(rows)]])))
    copies = np.concatenate([[False], same])
    pairs = np.empty(int(copies.sum()), dtype=_PAIR)
    pairs["number"], pairs["kept"] = rows["row"][copies], kept[copies]
    return pairs


def _spread(pairs: np.ndarray, firsts: Sequence[int | None], folder: Path) -> None:
    """Append pairs to one file for each part."""
    known = [(first, index) for index, first in enumerate(firsts) if first is not None]
    at = np.searchsorted([first for first, _ in known], pairs["number"], side="right") - 1
    for which in np.unique(at):
        with open(folder / str(known[which][1]), "ab") as file:
            file.write(pairs[at == which].tobytes())


def _read(path: Path) -> np.ndarray:
    table = pq.read_table(path, use_threads=False)
    rows = np.empty(table.num_rows, dtype=_ROW)
    rows["hash"], rows["low"] = table["high"].to_numpy(), table["low"].to_numpy()
    rows["row"], rows["training"] = table["number"].to_numpy(), ~table["held_out"].to_numpy()
    return rows


def _first_number(path: Path) -> int | None:
    """The lowest document number of a part; None where nothing of it was kept."""
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=1, columns=["number"], use_threads=False), None)
    return None if batch is None or not batch.num_rows else batch.column(0)[0].as_py()
