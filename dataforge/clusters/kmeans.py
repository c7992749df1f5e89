"""Spherical k-means through FAISS: one interface for CPU and GPU, over a sample held in memory.

Cosine similarity, centroids re-normalised in every iteration, as ClusterClip does (arXiv:2402.14526, authors' code).
Departures: a fixed number of iterations on a sample, FAISS's repair of empty clusters, and equal vectors count as one
with a weight, so that two centroids never start on one point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dataforge import seeds
from dataforge.errors import ClusteringError, MissingDependency

# N vectors  D dimensions  K clusters


@dataclass(frozen=True)
class Fit:
    """What k-means found."""

    centroids_KD: np.ndarray
    """Unit length, float32."""
    objective: list[float]
    """Sum over the sample of the similarity to the nearest centroid, before each iteration's update."""
    imbalance: list[float]
    """K Σ size² / (Σ size)² in each iteration: 1 when all clusters are of one size."""
    splits: list[int]
    """Empty clusters that each iteration re-made from larger ones."""
    distinct: int
    """Different vectors among those given."""


def fit_kmeans(
    vectors_ND: np.ndarray,
    num_clusters: int,
    *,
    seed: int,
    iterations: int = 25,
    num_threads: int = 1,
    use_gpu: bool = False,
    where: str | None = None,
) -> Fit:
    """Centroids of unit length that fit the vectors.

    Args:
        vectors_ND: float16 or float32; rows need not have unit length, but must have a direction.
        num_clusters: K, at most the number of distinct vectors.
        seed: of the first centroids.
        iterations: of Lloyd; it stops early only if nothing changes any more.
        num_threads: of FAISS, on the CPU.
        use_gpu: run on all GPUs that FAISS sees.
        where: for errors.
    Raises:
        ClusteringError: not finite or zero vectors, or fewer distinct vectors than clusters.
        MissingDependency: FAISS is not installed.
    """
    faiss = open_faiss()
    check_vectors(vectors_ND, where)
    distinct_MD, weights_M = distinct_rows(vectors_ND)
    if num_clusters > len(distinct_MD):
        raise ClusteringError(
            f"{num_clusters:,} clusters were asked for, but {len(vectors_ND):,} vectors hold "
            f"{len(distinct_MD):,} different ones",
            where=where,
            hint=f"set num_clusters to {len(distinct_MD):,} or less",
        )
    unit_MD = distinct_MD.astype(np.float32)
    unit_MD /= np.linalg.norm(unit_MD, axis=1, keepdims=True)
    if num_clusters == len(unit_MD):
        alone = float(num_clusters * (weights_M.astype(np.float64) ** 2).sum() / len(vectors_ND) ** 2)
        return Fit(unit_MD, [float(len(vectors_ND))], [alone], [0], num_clusters)
    kmeans = faiss.Kmeans(
        unit_MD.shape[1],
        num_clusters,
        niter=iterations,
        spherical=True,
        seed=seeds.derive(seed, "kmeans") & 0x7FFFFFFF,
        min_points_per_centroid=1,
        max_points_per_centroid=len(unit_MD) // num_clusters + 1,  # never FAISS's own subsampling
        gpu=use_gpu,
    )
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads)
    try:
        kmeans.train(unit_MD, weights=weights_M)
    finally:
        faiss.omp_set_num_threads(threads)
    centroids_KD = kmeans.centroids.astype(np.float64)
    centroids_KD /= np.linalg.norm(centroids_KD, axis=1, keepdims=True)
    steps: list[dict[str, Any]] = kmeans.iteration_stats
    return Fit(
        centroids_KD.astype(np.float32),
        [float(step["obj"]) for step in steps],
        [float(step["imbalance_factor"]) for step in steps],
        [int(step["nsplit"]) for step in steps],
        len(distinct_MD),
    )


def check_vectors(vectors_ND: np.ndarray, where: str | None = None) -> None:
    """Raise ClusteringError unless every vector is finite and has a direction."""
    lengths = np.einsum("nd,nd->n", vectors_ND, vectors_ND, dtype=np.float64)
    for bad, what in ((~np.isfinite(lengths), "not finite"), (lengths == 0, "all zero")):
        if bad.any():
            raise ClusteringError(
                f"{int(bad.sum()):,} of {len(lengths):,} vectors are {what}, the first is number {int(bad.argmax()):,}",
                where=where,
                hint="embed the documents again; `dataforge verify` says whether the vectors were damaged",
            )


def distinct_rows(vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows in order of first appearance, and how often each occurs (float32)."""
    rows = np.ascontiguousarray(vectors_ND)
    as_bytes = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
    _, first, counts = np.unique(as_bytes, return_index=True, return_counts=True)
    order = np.argsort(first)
    return rows[first[order]], counts[order].astype(np.float32)


def open_faiss() -> Any:
    """The FAISS module. Raises MissingDependency."""
    try:
        import faiss
    except ImportError as error:
        raise MissingDependency(
            "FAISS is not installed", hint="pip install 'dataforge-lm[cpu]', or 'dataforge-lm[gpu]' for CUDA"
        ) from error
    return faiss


def sees_gpu() -> bool:
    """Whether FAISS is a GPU build and sees one."""
    faiss = open_faiss()
    return getattr(faiss, "get_num_gpus", lambda: 0)() > 0
