"""Step 4: vectors become clusters. Centroids from a sample, a label for every document, then what they are about."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from dataforge.clusters.centroids import CentroidsConfig, FitCentroids, embedder_of, read_fit
from dataforge.clusters.clusters import AssignConfig, AssignDocuments
from dataforge.errors import ClusteringError, ConfigError
from dataforge.make import make
from dataforge.stage import Forecast, Run
from dataforge.workspace import Artifact, Workspace


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """How many clusters, and how they are fitted."""

    num_clusters: int | None = None
    """Clusters. By default half the square root of the number of documents, at least 64 and at most 10,000, but never
    fewer than eight documents a cluster on average."""
    seed: int = 0
    """Of the sample and of the first centroids."""
    iterations: int = 25
    """Of k-means."""
    sample_per_cluster: int = 256
    """k-means is fitted on this many documents for each cluster, or on all if there are fewer."""
    device: str = "cpu"
    """`cpu` or `cuda`, for the fit. Not part of the id: it is recorded, and parts are not mixed."""
    num_threads: int = 1
    """Threads of the fit; recorded like the device."""

    def __post_init__(self) -> None:
        for name in ("num_clusters", "iterations", "sample_per_cluster", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"there is no device {self.device!r}", hint="use cpu or cuda")


def default_num_clusters(num_documents: int) -> int:
    """Clusters for a corpus of so many documents: half the square root, 64 to 10,000, at least one.

    Source: papers' notes on ClusterClip defaults. Departure: below 512 documents, one cluster for every eight.

    >>> [default_num_clusters(n) for n in (5, 160, 5_000, 1_000_000, 10**12)]
    [1, 20, 64, 500, 10000]
    """
    usual = min(10_000, max(64, round(math.sqrt(num_documents) / 2)))
    return max(1, min(usual, num_documents // 8))


def cluster(
    workspace: Workspace,
    embeddings: Artifact,
    *,
    name: str,
    config: ClusterConfig | None = None,
    centroids: Artifact | None = None,
    explained: bool = True,
    run: Run | None = None,
) -> Artifact:
    """Clusters of all documents that may be trained on: a label and a similarity each.

    Args:
        workspace: where the artifacts go: `centroids`, `clusters` and `explanations`.
        embeddings: the vectors.
        name: the artifacts' name.
        config: how many clusters, and how they are fitted.
        centroids: join these instead of fitting new ones (a corpus that grew keeps its clusters).
        explained: also make `explanations`, what the clusters are about; they do not change the clusters' id.
        run: where to run.
    Raises:
        ClusteringError: more clusters than documents or distinct vectors; vectors that are not finite; given centroids
            of another embedder.
        MissingDependency: FAISS is not installed.
    """
    config, run = config or ClusterConfig(), run or Run()
    documents = embeddings if isinstance(embeddings, Forecast) else embeddings.input("documents")
    inputs = {"documents": documents, "embeddings": embeddings}
    if centroids is None:
        centroids = _fit(workspace, inputs, name, config, run)
    elif not isinstance(embeddings, Forecast):
        _check_embedder(centroids, embeddings)
    rest = dataclasses.replace(run, remake=tuple(part for part in run.remake if part != "centroids.npy"))
    inputs["centroids"] = centroids
    clusters = make(workspace, AssignDocuments(AssignConfig()), inputs, name=name, run=rest)
    if explained and not run.dry_run:
        from dataforge.clusters.explain import explain

        explain(workspace, clusters, documents, name=name, run=dataclasses.replace(run, remake=()))
    return clusters


def _fit(workspace: Workspace, inputs: dict[str, Artifact], name: str, config: ClusterConfig, run: Run) -> Artifact:
    documents = inputs["documents"]
    num_documents = documents.documents if isinstance(documents, Forecast) else documents.counts["out"]["documents"]
    settings = CentroidsConfig(
        num_clusters=config.num_clusters or default_num_clusters(num_documents),
        seed=config.seed,
        iterations=config.iterations,
        sample_per_cluster=config.sample_per_cluster,
    )
    stage = FitCentroids(settings, config.device, config.num_threads)
    run = dataclasses.replace(run, remake=tuple(part for part in run.remake if part == "centroids.npy"))
    return make(workspace, stage, inputs, name=name, run=run)


def _check_embedder(centroids: Artifact, embeddings: Artifact) -> None:
    if read_fit(centroids)["embedder"] != embedder_of(embeddings):
        raise ClusteringError(
            f"the centroids were fitted on vectors of another embedder than {embeddings.ref}",
            where=centroids.ref,
            hint="embed the documents as the centroids' documents were, or fit new centroids",
        )
