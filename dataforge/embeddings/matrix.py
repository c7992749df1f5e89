"""Embeddings as one tall matrix over parts: float16 on disk, mapped, never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dataforge.corpus import DocumentPart, Documents
from dataforge.errors import CorruptData
from dataforge.workspace import Artifact


@dataclass(frozen=True)
class MatrixPart:
    """The rows of one documents part, in the order of its kept documents. Plain data."""

    stem: str
    path: Path
    rows: int
    first_row: int
    """Global index of the first row."""
    dimensions: int
    content: str
    """Content digest of the file."""

    def mapped(self) -> np.ndarray:
        """The rows, float16 (rows, dimensions), mapped read-only. Raises CorruptData for a file of another shape."""
        if self.rows == 0:
            return np.zeros((0, self.dimensions), dtype=np.float16)
        matrix = np.load(self.path, mmap_mode="r", allow_pickle=False)
        if matrix.dtype != np.float16 or matrix.shape != (self.rows, self.dimensions):
            raise CorruptData(
                f"{self.path.name} holds {matrix.dtype} {matrix.shape}, float16 {(self.rows, self.dimensions)} is due",
                where=str(self.path),
                hint="`dataforge verify` says whether the file is damaged",
            )
        return matrix

    def blocks(self, block_rows: int = 8192) -> Iterator[tuple[int, np.ndarray]]:
        """(row within the part, float32 rows), in order, `block_rows` at a time."""
        matrix = self.mapped()
        for row in range(0, self.rows, block_rows):
            yield row, matrix[row : row + block_rows].astype(np.float32)


class Matrix:
    """The rows of an `embeddings` artifact: one a kept document, L2-normalised, held-out documents included."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.dimensions: int = artifact.counts["dimensions"]
        self.parts: list[MatrixPart] = []
        first = 0
        for told in artifact.parts(".npy"):
            stem, path = told["path"].split(".")[0], artifact.file(told["path"])
            self.parts.append(MatrixPart(stem, path, told["rows"], first, self.dimensions, told["content"]))
            first += told["rows"]
        self.num_rows = first

    @cached_property
    def documents(self) -> Documents:
        """The documents that the rows belong to."""
        return Documents(self.artifact.input("documents"))

    @cached_property
    def document_parts(self) -> list[DocumentPart]:
        """The documents parts, one for each of `parts`, in the same order."""
        by_stem = {part.stem: part for part in self.documents.parts}
        return [by_stem[part.stem] for part in self.parts]

    def numbers(self, index: int) -> np.ndarray:
        """Document numbers of the rows of `parts[index]`, int64, ascending."""
        numbers = self.document_parts[index].numbers
        assert len(numbers) == self.parts[index].rows, "embeddings are row-aligned with their documents"
        return numbers

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows of ascending global indices, float16 (len(rows), dimensions)."""
        rows = np.asarray(rows, dtype=np.int64)
        taken = np.empty((len(rows), self.dimensions), dtype=np.float16)
        edges = np.searchsorted(rows, [part.first_row for part in self.parts] + [self.num_rows])
        for part, begin, end in zip(self.parts, edges[:-1], edges[1:], strict=True):
            if end > begin:
                taken[begin:end] = part.mapped()[rows[begin:end] - part.first_row]
        return taken
