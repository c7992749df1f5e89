"""The stage behind `centroids`: k-means on a stratified sample, one file of unit vectors and a record of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from dataforge.clusters.kmeans import fit_kmeans, sees_gpu
from dataforge.clusters.sample import sample_rows
from dataforge.embeddings import Matrix
from dataforge.embeddings.embedders.embedder import device_class
from dataforge.errors import ClusteringError, CorruptData
from dataforge.stage import Inputs, Out, Part, PartOut, part_key
from dataforge.workspace import Artifact, Counts
from dataforge.workspace.content import digest_of
from dataforge.workspace.parts import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class CentroidsConfig:
    """How the centroids are fitted. Every field is part of the id."""

    num_clusters: int
    seed: int
    iterations: int
    sample_per_cluster: int


@dataclass(frozen=True)
class FitCentroids:
    """The stage: kind `centroids`, one part `centroids.npy` (float32, K x D) with `centroids.fit.json` beside it."""

    config: CentroidsConfig
    device: str = "cpu"
    num_threads: int = 1
    kind = "centroids"
    step = "cluster"
    version = 1

    def environment(self) -> dict[str, Any]:
        told = {"device": device_class(self.device), "numpy": version("numpy"), "faiss": _faiss_version()}
        return told | {"threads": self.num_threads}

    def split(self, inputs: Inputs) -> list[Part]:
        return [Part("centroids.npy", part_key(self, inputs["documents"].content, inputs["embeddings"].content))]

    def open_worker(self, inputs: Inputs) -> Matrix:
        return Matrix(inputs["embeddings"])

    def run_part(self, worker: Matrix, part: Part, out: PartOut) -> Counts:
        config, where = self.config, worker.artifact.ref
        if self.device != "cpu" and not sees_gpu():
            raise ClusteringError(
                "FAISS sees no GPU", where=where, hint="install 'dataforge-lm[gpu]', or set the device to cpu"
            )
        rows, available = sample_rows(worker, config.num_clusters * config.sample_per_cluster, config.seed)
        if config.num_clusters > available:
            raise ClusteringError(
                f"{config.num_clusters:,} clusters were asked for, but there are {available:,} documents to fit",
                where=where,
                hint=f"set num_clusters to {available:,} or less; held-out documents are never fitted on",
            )
        fit = fit_kmeans(
            worker.take(rows),
            config.num_clusters,
            seed=config.seed,
            iterations=config.iterations,
            num_threads=self.num_threads,
            use_gpu=self.device != "cpu",
            where=where,
        )
        with open(out.path, "wb") as file:
            np.save(file, fit.centroids_KD, allow_pickle=False)
        told = {
            "embedder": embedder_of(worker.artifact),
            "sampled": len(rows),
            "available": available,
            "distinct": fit.distinct,
            "objective": fit.objective,
            "imbalance": fit.imbalance,
            "splits": fit.splits,
        }
        write_json(out.attach("fit.json"), told, replacing=True)
        extra = {"clusters": len(fit.centroids_KD), "dimensions": worker.dimensions}
        return Counts(extra={**extra, "sampled": len(rows), "distinct": fit.distinct})

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        return Counts()


def read_centroids(artifact: Artifact) -> np.ndarray:
    """The centroids of a `centroids` artifact, float32 (K, D), rows of unit length."""
    centroids_KD = np.load(artifact.file("centroids.npy"), allow_pickle=False)
    shape = (artifact.counts["clusters"], artifact.counts["dimensions"])
    if centroids_KD.dtype != np.float32 or centroids_KD.shape != shape:
        raise CorruptData(
            f"centroids.npy holds {centroids_KD.dtype} {centroids_KD.shape}, float32 {shape} is due", where=artifact.ref
        )
    return centroids_KD


def read_fit(artifact: Artifact) -> dict[str, Any]:
    """How the fit went: objective, imbalance and splits of every iteration, sampled and distinct vectors."""
    return read_json(artifact.file("centroids.fit.json"))


def embedder_of(embeddings: Artifact) -> str:
    """Digest of what made the vectors, without the documents: equal for vectors that may be compared."""
    told = embeddings.manifest
    by_what = {role: given for role, given in told.inputs.items() if role != "documents"}
    content = {role: given["sha256"] if isinstance(given, dict) else given for role, given in by_what.items()}
    return digest_of([told.stage_version, told.config, content])


def _faiss_version() -> str:
    for name in ("faiss-gpu-cu12", "faiss-gpu", "faiss-cpu"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "none"
