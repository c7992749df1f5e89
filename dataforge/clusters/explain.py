"""What each cluster is about: keywords, medoid documents, sources and languages, and a map. Labels are not touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataforge.clusters.centroids import read_centroids
from dataforge.clusters.clusters import read_labels, read_sizes
from dataforge.clusters.keywords import class_tf_idf, words_of
from dataforge.clusters.plane import Plane
from dataforge.corpus import DocumentPart, Documents
from dataforge.embeddings import Matrix
from dataforge.embeddings.embedders.embedder import device_class
from dataforge.errors import ConfigError, InputError
from dataforge.make import make
from dataforge.stage import Inputs, Out, Part, PartOut, Run, part_key
from dataforge.workspace import Artifact, Counts, Workspace

_TALLY = pa.schema([("cluster", pa.int32()), ("what", pa.string()), ("value", pa.string()), ("documents", pa.int64())])
"""A part: documents of each cluster that have a `word` (of those read), a `source`, a `lang`; `read` counts those."""

_CLUSTERS = pa.schema(
    [
        ("cluster", pa.int32()),
        ("documents", pa.int64()),
        ("documents_read", pa.int64()),
        ("keywords", pa.list_(pa.string())),
        ("weights", pa.list_(pa.float32())),
        ("medoids", pa.list_(pa.int64())),
        ("sources", pa.list_(pa.string())),
        ("source_documents", pa.list_(pa.int64())),
        ("langs", pa.list_(pa.string())),
        ("lang_documents", pa.list_(pa.int64())),
        ("x", pa.float32()),
        ("y", pa.float32()),
    ]
)
_MAP = pa.schema([("number", pa.int64()), ("cluster", pa.int32()), ("x", pa.float32()), ("y", pa.float32())])
_BATCH_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """How much is read and told. Every field is part of the id."""

    num_keywords: int = 10
    num_medoids: int = 3
    """Documents nearest to the centroid that are named."""
    num_mix: int = 8
    """Sources and languages listed a cluster, the most frequent first."""
    max_documents: int = 20_000
    """About so many documents are read for keywords, the same number of each cluster (at least five)."""
    max_chars: int = 1500
    """Characters of a document that are read."""
    map_documents: int = 2000
    """About so many documents are placed on the map."""

    def __post_init__(self) -> None:
        for name in ("num_keywords", "num_medoids", "num_mix", "max_documents", "max_chars"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.map_documents < 0:
            raise ConfigError(f"map_documents must be 0 or more, got {self.map_documents}")


@dataclass(frozen=True)
class Explain:
    """The stage: kind `explanations`, a tally for each documents part, then `clusters.parquet` and `map.parquet`."""

    config: ExplainConfig
    kind = "explanations"
    step = "cluster"
    version = 1

    def environment(self) -> dict[str, Any]:
        return {"device": device_class(), "numpy": version("numpy")}

    def split(self, inputs: Inputs) -> list[Part]:
        clusters: Artifact = inputs["clusters"]
        sizes = clusters.part("sizes.npy")["content"]
        parts = []
        for documents in Documents(inputs["documents"]).parts:
            labels = clusters.part(f"{documents.stem}.parquet")
            made_of = (documents.content, documents.first_number, labels["content"], sizes)
            payload = {"documents": documents, "labels": clusters.file(labels["path"])}
            parts.append(Part(f"{documents.stem}.parquet", part_key(self, *made_of), payload))
        return parts

    def open_worker(self, inputs: Inputs) -> np.ndarray:
        """The share of each cluster's documents that is read."""
        sizes_K = read_sizes(inputs["clusters"])
        wanted = max(5, self.config.max_documents // len(sizes_K))
        return np.minimum(wanted / np.maximum(sizes_K, 1), 1.0)

    def run_part(self, worker: np.ndarray, part: Part, out: PartOut) -> Counts:
        documents: DocumentPart = part.payload["documents"]
        labels = pq.read_table(part.payload["labels"], columns=["label"], use_threads=False)["label"].to_numpy()
        tally: Counter[tuple[int, str, str]] = Counter()
        row = read = 0
        columns = ["text", "source", "lang"]
        for numbers, batch in documents.batches(columns, held_out=False, batch_rows=_BATCH_ROWS):
            here, row = labels[row : row + len(numbers)], row + len(numbers)
            for name in ("source", "lang"):
                tally.update((k, name, value or "") for k, value in zip(here.tolist(), batch.column(name).to_pylist()))
            chosen = np.flatnonzero(fractions(numbers) < worker[here])
            texts = pc.utf8_slice_codeunits(batch.column("text").take(pa.array(chosen)), 0, self.config.max_chars)
            for k, text in zip(here[chosen].tolist(), texts.to_pylist(), strict=True):
                tally[k, "read", ""] += 1
                tally.update((k, "word", word) for word in set(words_of(text)))
                read += 1
        assert row == len(labels), "labels are row-aligned with the documents that may be trained on"
        rows = [(*key, count) for key, count in sorted(tally.items())]
        arrays = list(zip(*rows, strict=True)) or [()] * 4
        table = pa.table([pa.array(c, f.type) for c, f in zip(arrays, _TALLY, strict=True)], schema=_TALLY)
        pq.write_table(table, out.path, compression="zstd")
        return Counts(extra={"documents_read": read})

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        clusters: Artifact = inputs["clusters"]
        sizes_K, centroids_KD = read_sizes(clusters), read_centroids(inputs["centroids"])
        plane = Plane.through(centroids_KD, sizes_K)
        if out.has("clusters.parquet"):
            out.keep("clusters.parquet")
        else:
            tally = _added_up(pq.ParquetFile(out.folder / part["path"]) for part in parts)
            told = self._told(tally, sizes_K, medoids(clusters, self.config.num_medoids), plane.place(centroids_KD))
            with out.write("clusters.parquet", rows=len(sizes_K)) as path:
                pq.write_table(pa.Table.from_pylist(told, schema=_CLUSTERS), path, compression="zstd")
        if out.has("map.parquet"):
            out.keep("map.parquet")
        else:
            table = self._map(clusters, Matrix(inputs["embeddings"]), plane)
            with out.write("map.parquet", rows=table.num_rows) as path:
                pq.write_table(table, path, compression="zstd")
        return Counts(extra={"clusters": len(sizes_K)})

    def _told(
        self, tally: pa.Table, sizes_K: np.ndarray, medoids: list[list[int]], places_K2: np.ndarray
    ) -> list[dict[str, Any]]:
        """A row for each cluster."""
        read = dict(zip(*(_of(tally, "read")[name].to_pylist() for name in ("cluster", "documents")), strict=True))
        words = _of(tally, "word")
        cluster, count = words["cluster"].to_numpy(), words["documents"].to_numpy()
        coded = words["value"].combine_chunks().dictionary_encode()
        weight = class_tf_idf(cluster, coded.indices.to_numpy(), count)
        # A word of one document names that document, not its cluster, unless the cluster is that small.
        few = np.array([read.get(k, 0) < 5 for k in range(len(sizes_K))])
        weight = np.where((count > 1) | few[cluster], weight, 0.0)
        keywords = _top(words, cluster, weight, self.config.num_keywords)
        mixes = {name: _mix(tally, name, self.config.num_mix) for name in ("source", "lang")}
        rows = []
        for k, size in enumerate(sizes_K.tolist()):
            told = keywords.get(k, [])
            row = {"cluster": k, "documents": size, "documents_read": read.get(k, 0), "medoids": medoids[k]}
            row |= {"keywords": [word for word, _ in told], "weights": [weight for _, weight in told]}
            for name, mix in mixes.items():
                row |= {f"{name}s": [v for v, _ in mix.get(k, [])], f"{name}_documents": [n for _, n in mix.get(k, [])]}
            rows.append({**row, "x": float(places_K2[k, 0]), "y": float(places_K2[k, 1])})
        return rows

    def _map(self, clusters: Artifact, matrix: Matrix, plane: Plane) -> pa.Table:
        """Some documents' places."""
        total = clusters.counts["out"]["documents"]
        share = self.config.map_documents / max(total, 1)
        batches = []
        for index, part in enumerate(matrix.parts):
            told = pq.read_table(clusters.file(f"{part.stem}.parquet"), columns=["number", "label"], use_threads=False)
            numbers = told["number"].to_numpy()
            chosen = np.flatnonzero(fractions(numbers, stream=1) < share)
            rows = np.searchsorted(matrix.numbers(index), numbers[chosen])
            places = plane.place(part.mapped()[rows].astype(np.float32))
            columns = [numbers[chosen], told["label"].to_numpy()[chosen], places[:, 0], places[:, 1]]
            batches.append(pa.table(columns, schema=_MAP))
        return pa.concat_tables(batches)


def explain(
    workspace: Workspace,
    clusters: Artifact,
    documents: Artifact,
    *,
    name: str,
    config: ExplainConfig | None = None,
    run: Run | None = None,
) -> Artifact:
    """What the clusters are about, as an artifact of its own: keywords never change a cluster's id.

    Args:
        workspace: where the artifact goes, of kind `explanations`.
        clusters: what to explain.
        documents: the documents that were clustered.
        name: the artifact's name.
        config: how much is read and told.
        run: where to run.
    Raises:
        InputError: the documents are not those that were clustered.
    """
    if clusters.manifest.inputs["documents"]["sha256"] != documents.content:
        raise InputError(
            f"{documents.ref} are not the documents of these clusters",
            where=clusters.ref,
            hint=f"give documents/{clusters.manifest.inputs['documents']['id']}",
        )
    inputs = {"clusters": clusters, "documents": documents}
    inputs |= {role: clusters.input(role) for role in ("embeddings", "centroids")}
    return make(workspace, Explain(config or ExplainConfig()), inputs, name=name, run=run)


def read_explanations(explanations: Artifact) -> list[dict[str, Any]]:
    """One row for each cluster: documents, keywords, medoids, sources, languages, place on the map."""
    return pq.read_table(explanations.file("clusters.parquet"), use_threads=False).to_pylist()


def read_map(explanations: Artifact) -> pa.Table:
    """Sampled documents: number, cluster, x, y."""
    return pq.read_table(explanations.file("map.parquet"), use_threads=False)


def medoids(clusters: Artifact, num_medoids: int) -> list[list[int]]:
    """Numbers of the documents nearest to each centroid, nearest first, ties to the lowest number."""
    numbers, labels, near = np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    for batch in read_labels(clusters):
        numbers, labels = np.concatenate([numbers, batch[0]]), np.concatenate([labels, batch[1]])
        near = np.concatenate([near, batch[2]])
        order = np.lexsort((numbers, -near, labels))
        rank = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
        kept = order[rank < num_medoids]
        numbers, labels, near = numbers[kept], labels[kept], near[kept]
    told: list[list[int]] = [[] for _ in range(clusters.counts["clusters"])]
    for number, label in zip(numbers.tolist(), labels.tolist(), strict=True):
        told[label].append(number)
    return told


def fractions(numbers: np.ndarray, stream: int = 0) -> np.ndarray:
    """A fixed fraction in [0, 1) for each document number, as good as random (splitmix64's finaliser).

    >>> fractions(np.array([0, 1, 2])).round(3)
    array([0.883, 0.432, 0.026])
    """
    x = numbers.astype(np.uint64) + np.uint64(1) + np.uint64(stream << 48)
    x *= np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) / 2.0**64


def _added_up(files: Iterator[pq.ParquetFile]) -> pa.Table:
    """The tallies of all parts as one, sorted."""
    total = _TALLY.empty_table()
    for file in files:
        with file:
            both = pa.concat_tables([total, file.read(use_threads=False)])
        summed = both.group_by(["cluster", "what", "value"], use_threads=False).aggregate([("documents", "sum")])
        total = summed.rename_columns(_TALLY.names)
    return total.sort_by([(name, "ascending") for name in ("cluster", "what", "value")])


def _of(tally: pa.Table, what: str) -> pa.Table:
    return tally.filter(pc.equal(tally["what"], what))


def _top(table: pa.Table, cluster: np.ndarray, weight: np.ndarray, most: int) -> dict[int, list[tuple[str, float]]]:
    """Cluster -> its values of greatest weight above 0; ties in the table's order."""
    order = np.lexsort((np.arange(len(weight)), -weight, cluster))
    rank = np.arange(len(order)) - np.searchsorted(cluster[order], cluster[order])
    order = order[(rank < most) & (weight[order] > 0)]
    told: dict[int, list[tuple[str, float]]] = {}
    values = table["value"].take(pa.array(order)).to_pylist()
    for k, value, w in zip(cluster[order].tolist(), values, weight[order].tolist(), strict=True):
        told.setdefault(k, []).append((value, w))
    return told


def _mix(tally: pa.Table, what: str, most: int) -> dict[int, list[tuple[str, float]]]:
    table = _of(tally, what)
    return _top(table, table["cluster"].to_numpy(), table["documents"].to_numpy(), most)
