"""Step 3: documents become vectors. One float16 matrix for each documents part, rows in document order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dataforge.corpus import DocumentPart, Documents
from dataforge.embeddings.embedders import EmbedConfig, Embedder, Encoder, embedders
from dataforge.errors import NothingToDo, WorkspaceError
from dataforge.make import make
from dataforge.stage import Forecast, Inputs, Out, Part, PartOut, RawFile, Run, part_key
from dataforge.workspace import Artifact, Counts, Workspace

_READ_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class EmbeddingsConfig:
    """What the vectors were made with, as the manifest says it."""

    embedder: str
    settings: Any
    """The embedder's own settings."""


@dataclass(frozen=True)
class Embed:
    """The stage: kind `embeddings`, `part-00000.npy` for each documents part, held-out documents included."""

    config: EmbeddingsConfig
    embedder: Embedder
    kind = "embeddings"
    step = "embed"
    version = 1

    def environment(self) -> dict[str, Any]:
        return self.embedder.environment()

    def split(self, inputs: Inputs) -> list[Part]:
        with_what = [_identity(given) for role, given in sorted(inputs.items()) if role != "documents"]
        return [
            Part(f"{part.stem}.npy", part_key(self, part.content, with_what), {"part": part})
            for part in Documents(inputs["documents"]).parts
        ]

    def open_worker(self, inputs: Inputs) -> Encoder:
        return self.embedder.open(inputs)

    def run_part(self, worker: Encoder, part: Part, out: PartOut) -> Counts:
        mine: DocumentPart = part.payload["part"]
        counts = Counts(taken={"documents": 0, "bytes": 0}, made={"documents": 0}, extra={"blank": 0})
        with open(out.path, "wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (mine.num_documents, worker.dimensions)}
            np.lib.format.write_array_header_1_0(file, header)
            for texts, size in _windows(mine, worker):
                rows, blank = unit_rows(worker.encode(texts), where=f"{self.config.embedder}, {mine.stem}")
                file.write(rows.tobytes())
                taken = {"documents": len(texts), "bytes": size}
                counts += Counts(taken, {"documents": len(rows)}, extra={"blank": blank})
        return counts

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        if not any(part["counts"]["out"]["documents"] for part in parts):
            raise NothingToDo("there is no document to embed", where=inputs["documents"].ref)
        return Counts(extra={"dimensions": _width(out.folder / parts[0]["path"])})


def embed(
    workspace: Workspace,
    documents: Artifact,
    *,
    name: str,
    config: EmbedConfig | None = None,
    run: Run | None = None,
) -> Artifact:
    """Vectors of all kept documents, float16 and L2-normalised.

    A document that says nothing to the embedder (only blanks, only unknown signs) gets the unit vector along the last
    axis and is counted as `blank`: it has a place, far from the others, and is the same in every run.

    Args:
        workspace: where the artifacts go: `embeddings`, and `static-vectors` for the embedder `static`.
        documents: what to embed, held-out documents included (evaluation looks at them; nothing is fitted on them).
        name: the artifact's name.
        config: which embedder, how much of a document it reads, and where it runs.
        run: where to run.
    Raises:
        UnknownName: no embedder of that name.
        ConfigError: a setting the embedder does not have, or no model at that path.
        MissingDependency: the embedder's packages are not installed.
    """
    config, run = config or EmbedConfig(), run or Run()
    embedder = embedders.get(config.embedder)(config)
    of_documents = tuple(part for part in run.remake if part.startswith("part-"))
    others = tuple(part for part in run.remake if part not in of_documents)
    inputs = embedder.inputs(workspace, dataclasses.replace(run, remake=others))
    inputs = {role: _sized(given, documents) for role, given in inputs.items()}
    stage = Embed(EmbeddingsConfig(embedder=config.embedder, settings=embedder.settings), embedder)
    run = dataclasses.replace(run, remake=of_documents)
    return make(workspace, stage, {"documents": documents, **inputs}, name=name, run=run)


def unit_rows(rows: np.ndarray, *, where: str) -> tuple[np.ndarray, int]:
    """Rows at length 1 in float16, and how many were all zero; those point along the last axis.

    Args:
        rows: float32, shape (n, D).
        where: for the error.
    Raises:
        WorkspaceError: a row is not finite; the embedder is at fault.

    >>> unit_rows(np.array([[3, 4], [0, 0]], dtype=np.float32), where="here")
    (array([[0.6, 0.8],
           [0. , 1. ]], dtype=float16), 1)
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    if not np.isfinite(lengths).all():
        raise WorkspaceError(
            f"{int((~np.isfinite(lengths)).sum()):,} of {len(rows):,} vectors are not finite",
            where=where,
            hint="this embedder or model is faulty here; try it on the CPU, or another one",
        )
    blank = lengths == 0
    unit = (rows / np.where(blank, 1.0, lengths)[:, None]).astype(np.float16)
    unit[blank, -1] = 1.0
    return unit, int(blank.sum())


def _windows(part: DocumentPart, encoder: Encoder) -> Iterator[tuple[list[str], int]]:
    """(texts cut to what the encoder reads, bytes of the whole texts), `window_documents` texts at a time.

    Windows follow from the part's kept documents alone, so every run composes the same batches.
    """
    texts: list[str] = []
    size = 0
    for _, batch in part.batches(["text"], batch_rows=_READ_ROWS):
        column = batch.column("text")
        cut = pc.utf8_slice_codeunits(column, 0, encoder.max_chars).to_pylist()
        sizes = pc.binary_length(column).to_pylist()
        for text, text_bytes in zip(cut, sizes, strict=True):
            texts.append(text)
            size += text_bytes
            if len(texts) == encoder.window_documents:
                yield texts, size
                texts, size = [], 0
    if texts:
        yield texts, size


def _identity(given: Artifact | Forecast | Sequence[RawFile]) -> Any:
    if isinstance(given, Artifact):
        return given.content
    assert not isinstance(given, Forecast), "forecasts are never split"
    return [file.identity() for file in given]


def _sized(given: Any, documents: Artifact | Forecast) -> Any:
    """A forecast of token vectors, told how many documents are waiting, so that the step's own forecast knows."""
    if not isinstance(given, Forecast) or isinstance(documents, Forecast):
        return given
    size = documents.counts["out"]
    return dataclasses.replace(given, documents=size["documents"], bytes=size["bytes"])


def _width(path: Path) -> int:
    with open(path, "rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        (_, width), _, _ = np.lib.format.read_array_header_1_0(file)
    return width
