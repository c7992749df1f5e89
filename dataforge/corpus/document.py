"""Documents: what a row is, and how to read the kept ones of an artifact with their numbers.

A document's *number* is its position in the root `documents` artifact, counted over its parts in order. Filtered and
deduplicated artifacts hold no text: they keep the parent's parts and a bitmap of kept rows, so numbers never change and
may have holes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataforge.errors import CorruptData, InputError
from dataforge.workspace.artifact import Artifact

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("lang", pa.string()),
        ("license", pa.string()),
        ("meta", pa.string()),
        ("held_out", pa.bool_()),
        ("file", pa.string()),
        ("position", pa.int64()),
    ]
)
"""Columns of a root part. `meta` is JSON; `file` and `position` (line or row, from 1) say where the row came from."""

KEPT_SUFFIX = ".kept.npy"
"""A filtered artifact's file for each root part: one bit a row (NumPy `packbits`, little order), 1 = kept."""


@dataclass(frozen=True)
class DocumentPart:
    """The kept documents of one root part. Plain data: it can be sent to another process."""

    stem: str
    """`part-00000`, the same in every artifact made part by part from these documents."""
    path: Path
    """The root part's Parquet file."""
    rows: int
    """Rows of the root part, kept or not."""
    first_number: int
    """Number of the part's first row."""
    kept_path: Path | None
    content: str
    """Digest of what is in it: the root part's content and which rows are kept."""

    @cached_property
    def kept(self) -> np.ndarray:
        """Which rows are kept, bool, shape (rows,)."""
        if self.kept_path is None:
            return np.ones(self.rows, dtype=bool)
        return read_kept(self.kept_path, self.rows)

    @property
    def num_documents(self) -> int:
        """Kept documents, held-out ones included."""
        return int(self.kept.sum())

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the kept documents, int64, ascending."""
        return self.first_number + np.flatnonzero(self.kept).astype(np.int64)

    def batches(
        self, columns: Sequence[str] = ("text",), *, held_out: bool | None = None, batch_rows: int = 1024
    ) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """The kept documents in order, in batches: (numbers int64, the columns asked for).

        Args:
            columns: names of `SCHEMA`.
            held_out: None for all kept documents, False for those that may be trained on, True for the held-out ones.
            batch_rows: rows of the root part read at a time; some of them may not be kept.
        """
        wanted = [*columns, "held_out"] if held_out is not None and "held_out" not in columns else list(columns)
        row = 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=batch_rows, columns=wanted, use_threads=False):
                mask = self.kept[row : row + batch.num_rows]
                if held_out is not None:
                    mask = mask & (batch.column("held_out").to_numpy(zero_copy_only=False) == held_out)
                numbers = self.first_number + row + np.flatnonzero(mask).astype(np.int64)
                row += batch.num_rows
                if len(numbers):
                    chosen = batch.select(list(columns))
                    yield numbers, chosen if mask.all() else chosen.filter(pa.array(mask))

    def column(self, name: str) -> pa.Array:
        """One column of the kept documents, whole (for short columns such as `held_out` and `source`)."""
        batches = [batch.column(0) for _, batch in self.batches([name])]
        return pa.concat_arrays(batches) if batches else pa.array([], SCHEMA.field(name).type)


class Documents:
    """The kept documents of a `documents` artifact, whatever filters stand between it and its root."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.root = root_of(artifact)
        parts, first = [], 0
        for told in self.root.parts(".parquet"):
            stem = told["path"].split(".")[0]
            kept_path, content = None, told["content"]
            if artifact.id != self.root.id:
                kept = artifact.part(stem + KEPT_SUFFIX)
                kept_path, content = artifact.file(kept["path"]), f"{content}+{kept['content']}"
            parts.append(DocumentPart(stem, self.root.file(told["path"]), told["rows"], first, kept_path, content))
            first += told["rows"]
        self.parts: list[DocumentPart] = parts
        self.num_rows = first
        """Rows of the root: numbers are below it."""

    @property
    def num_documents(self) -> int:
        """Kept documents, held-out ones included."""
        return self.artifact.counts["out"]["documents"]

    def held_out_numbers(self) -> np.ndarray:
        """Numbers of the kept held-out documents, int64, ascending."""
        return self._numbers(True)

    def training_numbers(self) -> np.ndarray:
        """Numbers of the kept documents that may be trained on, int64, ascending."""
        return self._numbers(False)

    def _numbers(self, held_out: bool) -> np.ndarray:
        found = []
        for part in self.parts:
            found += [numbers for numbers, _ in part.batches(["held_out"], held_out=held_out, batch_rows=1 << 16)]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def get(self, numbers: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Rows by number, in the order asked for, each with its `number`; dropped documents included.

        Raises:
            InputError: a number is not in the root documents.
        """
        names = list(columns or SCHEMA.names)
        rows: dict[int, dict[str, Any]] = {}
        wanted = np.unique(np.asarray(numbers, dtype=np.int64))
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self.num_rows:
            raise InputError(
                f"there is no document number {wanted[0] if wanted[0] < 0 else wanted[-1]:,}",
                where=self.artifact.ref,
                hint=f"numbers run from 0 to {self.num_rows - 1:,}",
            )
        for part in self.parts:
            here = wanted[(wanted >= part.first_number) & (wanted < part.first_number + part.rows)] - part.first_number
            if len(here):
                rows |= _rows_of(part, here, names)
        return [rows[int(number)] for number in numbers]


def _rows_of(part: DocumentPart, here: np.ndarray, names: list[str]) -> dict[int, dict[str, Any]]:
    """Read only the row groups that hold the rows asked for."""
    found: dict[int, dict[str, Any]] = {}
    with pq.ParquetFile(part.path) as file:
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            inside = here[(here >= first) & (here < first + rows)] - first
            if len(inside):
                table = file.read_row_group(group, columns=names, use_threads=False).take(pa.array(inside))
                for row, told in zip(inside + first, table.to_pylist(), strict=True):
                    number = part.first_number + int(row)
                    found[number] = {"number": number, **told}
            first += rows
    return found


def root_of(artifact: Artifact) -> Artifact:
    """The artifact that holds the text: follow a filtered `documents` artifact to the ingested one."""
    while "documents" in artifact.manifest.inputs:
        artifact = artifact.input("documents")
    return artifact


def write_kept(path: Path, kept: np.ndarray) -> None:
    """Write a bitmap of kept rows."""
    with open(path, "wb") as file:
        np.save(file, np.packbits(kept, bitorder="little"), allow_pickle=False)


def read_kept(path: Path, rows: int) -> np.ndarray:
    """Read a bitmap of kept rows, bool, shape (rows,). Raises CorruptData if it is for another number of rows."""
    packed = np.load(path, allow_pickle=False)
    if packed.dtype != np.uint8 or packed.shape != ((rows + 7) // 8,):
        raise CorruptData(
            f"{path.name} is a bitmap of {packed.size * 8:,} rows, the part has {rows:,}", where=str(path)
        )
    return np.unpackbits(packed, count=rows, bitorder="little").astype(bool)
