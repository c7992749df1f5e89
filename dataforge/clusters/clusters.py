"""The stage behind `clusters`: a label and a similarity for every document, and the sizes of the clusters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataforge.clusters.assign import nearest
from dataforge.clusters.centroids import read_centroids
from dataforge.corpus import DocumentPart
from dataforge.embeddings import Matrix, MatrixPart
from dataforge.embeddings.embedders.embedder import device_class
from dataforge.stage import Inputs, Out, Part, PartOut, part_key
from dataforge.workspace import Artifact, Counts
from dataforge.workspace.parts import read_json

SCHEMA = pa.schema([("number", pa.int64()), ("label", pa.int32()), ("similarity", pa.float32())])
"""Columns of a part: a document that may be trained on, its cluster, and x·c with that cluster's centroid."""

Labelled = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A batch of rows: numbers int64, labels int32, similarities float32."""

_BATCH_ROWS = 1 << 16
_QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
_LOW_SIMILARITY = 0.2


@dataclass(frozen=True, kw_only=True)
class AssignConfig:
    """How documents join clusters. Every field is part of the id."""

    metric: str = "cosine"


@dataclass(frozen=True)
class AssignDocuments:
    """The stage: kind `clusters`, one Parquet part for each documents part, `sizes.npy` and `clusters.summary.json`.

    Held-out documents get no row: no plan can draw them. They are dropped and listed like any other.
    """

    config: AssignConfig
    kind = "clusters"
    step = "cluster"
    version = 1

    def environment(self) -> dict[str, Any]:
        return {"device": device_class(), "numpy": version("numpy")}

    def split(self, inputs: Inputs) -> list[Part]:
        matrix = Matrix(inputs["embeddings"])
        parts = []
        for documents, vectors in zip(matrix.document_parts, matrix.parts, strict=True):
            size = matrix.artifact.part(vectors.path.name)["counts"]["in"]["bytes"]
            # Numbers are in the rows, so where a part begins is part of what it is made of.
            made_of = (documents.content, documents.first_number, vectors.content, inputs["centroids"].content)
            payload = {"documents": documents, "vectors": vectors, "bytes": size}
            parts.append(Part(f"{documents.stem}.parquet", part_key(self, *made_of), payload))
        return parts

    def open_worker(self, inputs: Inputs) -> np.ndarray:
        return read_centroids(inputs["centroids"])

    def run_part(self, worker: np.ndarray, part: Part, out: PartOut) -> Counts:
        documents: DocumentPart = part.payload["documents"]
        vectors: MatrixPart = part.payload["vectors"]
        counts = Counts(taken={"documents": vectors.rows, "bytes": part.payload["bytes"]}, made={"documents": 0})
        mapped, row = vectors.mapped(), 0
        with pq.ParquetWriter(out.path, SCHEMA, compression="zstd") as writer:
            columns = ["held_out", "id", "file", "position"]
            for numbers, batch in documents.batches(columns, batch_rows=_BATCH_ROWS):
                rows, row = mapped[row : row + len(numbers)], row + len(numbers)
                free = ~batch.column("held_out").to_numpy(zero_copy_only=False)
                where = f"{part.stem}, from document {numbers[0]:,}"
                labels, similarity = nearest(rows[free], worker, where=where)
                writer.write_table(pa.table([numbers[free], labels, similarity], schema=SCHEMA))
                counts.made["documents"] += int(free.sum())
                for place in np.flatnonzero(~free).tolist():
                    told = {name: batch.column(name)[place].as_py() for name in columns[1:]}
                    out.drop("held-out", number=int(numbers[place]), **told)
                    counts.drop("held-out", documents=1)
        assert row == vectors.rows, "embeddings are row-aligned with their documents"
        return counts

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        num_clusters = inputs["centroids"].counts["clusters"]
        sizes_K = np.zeros(num_clusters, dtype=np.int64)
        sums_K = np.zeros(num_clusters, dtype=np.float64)
        low = 0
        for _, labels, similarity in _rows(out.folder / part["path"] for part in parts):
            sizes_K += np.bincount(labels, minlength=num_clusters)
            sums_K += np.bincount(labels, weights=similarity, minlength=num_clusters)
            low += int((similarity < _LOW_SIMILARITY).sum())
        if out.has("sizes.npy"):
            out.keep("sizes.npy")
        else:
            with out.write("sizes.npy", rows=num_clusters) as path, open(path, "wb") as file:
                np.save(file, sizes_K, allow_pickle=False)
        if out.has("clusters.summary.json"):
            out.keep("clusters.summary.json")
        else:
            with out.write("clusters.summary.json", rows=num_clusters) as path:
                path.write_text(json.dumps(summary(sizes_K, sums_K, low), indent=1) + "\n", encoding="utf-8")
        return Counts(extra={"clusters": num_clusters, "empty_clusters": int((sizes_K == 0).sum())})


def summary(sizes_K: np.ndarray, similarity_sums_K: np.ndarray, num_low: int) -> dict[str, Any]:
    """What is worth knowing of a clustering: sizes, how uneven they are, how near documents are to their centroids.

    >>> told = summary(np.array([3, 1, 0]), np.array([2.7, 0.5, 0.0]), num_low=0)
    >>> told["imbalance"], told["mean_similarity"], told["cluster_mean_similarity"]
    (1.875, 0.8, [0.9, 0.5, None])
    """
    total, num_clusters = int(sizes_K.sum()), len(sizes_K)
    means = [round(s / n, 6) if n else None for s, n in zip(similarity_sums_K.tolist(), sizes_K.tolist(), strict=True)]
    quantiles = np.quantile(sizes_K, _QUANTILES, method="lower").tolist()
    return {
        "documents": total,
        "clusters": num_clusters,
        "empty_clusters": int((sizes_K == 0).sum()),
        "imbalance": round(num_clusters * float((sizes_K.astype(float) ** 2).sum()) / max(total, 1) ** 2, 6),
        "mean_similarity": round(float(similarity_sums_K.sum()) / max(total, 1), 6),
        "documents_below_similarity_0.2": num_low,
        "size_quantiles": dict(zip(map(str, _QUANTILES), quantiles, strict=True)),
        "sizes": sizes_K.tolist(),
        "cluster_mean_similarity": means,
    }


def read_labels(clusters: Artifact) -> Iterator[Labelled]:
    """The rows of a `clusters` artifact in batches, numbers ascending."""
    return _rows(clusters.file(part["path"]) for part in clusters.parts(".parquet"))


def read_sizes(clusters: Artifact) -> np.ndarray:
    """Documents in each cluster, int64 (K,)."""
    return np.load(clusters.file("sizes.npy"), allow_pickle=False)


def read_summary(clusters: Artifact) -> dict[str, Any]:
    """The figures of `summary`."""
    return read_json(clusters.file("clusters.summary.json"))


def _rows(paths: Iterable[Path]) -> Iterator[Labelled]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                numbers, labels, similarity = (column.to_numpy() for column in batch.columns)
                yield numbers, labels, similarity
