"""The documents that may be drawn, with the cluster of each: a merge of two streams that are both in document order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataforge.corpus import Documents
from dataforge.errors import ArtifactNotFound, CorruptData, HeldOut, InputError
from dataforge.workspace import Artifact

I64 = NDArray[np.int64]

_BATCH_ROWS = 1 << 16
_TEXT_ROWS = 1 << 10


@dataclass(frozen=True)
class LabelledBatch:
    """Documents that are kept and not held out, in document order; at least one."""

    numbers: I64
    labels: I64
    """Cluster of each; -1 where the clusters artifact has none."""
    columns: pa.RecordBatch
    """The further columns of the documents that were asked for."""


def labelled_documents(
    clusters: Artifact, documents: Documents, columns: tuple[str, ...] = ()
) -> Iterator[LabelledBatch]:
    """The training documents with their labels, in batches of bounded size.

    Documents that were clustered and are not kept any more are passed over.

    Raises:
        HeldOut: a held-out document has a label.
        CorruptData: a clusters part is not in ascending document order, or names a cluster that is not there.
    """
    clustered = _label_batches(clusters)
    known, labels = np.zeros(0, np.int64), np.zeros(0, np.int64)
    batch_rows = _BATCH_ROWS if not columns else _TEXT_ROWS
    for part in documents.parts:
        for numbers, batch in part.batches([*columns, "held_out"], batch_rows=batch_rows):
            passed = int(np.searchsorted(known, numbers[0]))
            known, labels = known[passed:], labels[passed:]
            while not known.size or known[-1] < numbers[-1]:
                more = next(clustered, None)
                if more is None:
                    break
                fresh = more[0] >= numbers[0]
                known = np.concatenate([known, more[0][fresh]])
                labels = np.concatenate([labels, more[1][fresh]])
            at = np.searchsorted(known, numbers)
            found = at < known.size
            found[found] = known[at[found]] == numbers[found]
            label = np.full(numbers.size, -1, np.int64)
            label[found] = labels[at[found]]
            free = ~batch.column("held_out").to_numpy(zero_copy_only=False)
            if (found & ~free).any():
                raise HeldOut(
                    f"document {int(numbers[found & ~free][0]):,} is held out and has a cluster",
                    where=clusters.ref,
                    hint="cluster these documents again: held-out ones get no label, so no plan can draw them",
                )
            if free.any():
                training = batch if free.all() else batch.filter(pa.array(free))
                yield LabelledBatch(numbers[free], label[free], training)


def sizes_of(clusters: Artifact, documents: Documents) -> I64:
    """Training documents in each cluster, int64, shape (C,).

    Read from the clusters' own `sizes.npy` if these are the documents they were made from, else counted.
    """
    if clusters.parts("sizes.npy") and clusters.manifest.inputs["documents"]["sha256"] == documents.artifact.content:
        return np.load(clusters.file("sizes.npy"), allow_pickle=False)
    sizes = np.zeros(num_clusters_of(clusters), np.int64)
    for batch in labelled_documents(clusters, documents):
        sizes += np.bincount(batch.labels[batch.labels >= 0], minlength=len(sizes))
    return sizes


def num_clusters_of(clusters: Artifact) -> int:
    """Clusters of an artifact, empty ones included."""
    return int(clusters.counts["clusters"])


def _label_batches(clusters: Artifact) -> Iterator[tuple[I64, I64]]:
    last = -1
    limit = num_clusters_of(clusters)
    for told in clusters.parts(".parquet"):
        with pq.ParquetFile(clusters.file(told["path"])) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=["number", "label"], use_threads=False):
                if not batch.num_rows:
                    continue
                numbers = batch.column("number").to_numpy().astype(np.int64, copy=False)
                labels = batch.column("label").to_numpy().astype(np.int64)
                if numbers[0] <= last or (np.diff(numbers) <= 0).any():
                    raise CorruptData(
                        "document numbers do not ascend", where=f"{clusters.ref} {told['path']}", hint="cluster again"
                    )
                if labels.max() >= limit:
                    raise CorruptData(
                        f"a document has label {labels.max():,}, there are {limit:,} clusters",
                        where=f"{clusters.ref} {told['path']}",
                        hint="cluster again",
                    )
                last = int(numbers[-1])
                yield numbers, labels


def documents_of(clusters: Artifact) -> Artifact:
    """The documents that a clusters artifact was made from, found through its inputs.

    Raises:
        InputError: it has none (a clusters artifact from elsewhere): they have to be given.
    """
    found = _documents_behind(clusters)
    if found is None:
        raise InputError(
            "the clusters do not say which documents they were made from",
            where=clusters.ref,
            hint="give the documents artifact",
        )
    return found


def check_same_root(clusters: Artifact, documents: Documents) -> None:
    """Refuse documents whose numbers mean other texts than those of the clusters.

    Numbers count rows of the root artifact; they mean the same in a root and in what was appended to it.

    Raises:
        InputError: neither root is the other's beginning.
    """
    behind = _documents_behind(clusters)
    if behind is None:
        return
    first, second = Documents(behind), documents
    shared = min(len(first.parts), len(second.parts))
    roots = [[told["content"] for told in each.root.parts(".parquet")][:shared] for each in (first, second)]
    if roots[0] != roots[1]:
        raise InputError(
            f"{clusters.ref} was made from {behind.ref}, whose numbers mean other texts than those of "
            f"{documents.artifact.ref}",
            where=clusters.ref,
            hint=f"give documents that come from {first.root.ref}",
        )


def _documents_behind(artifact: Artifact) -> Artifact | None:
    told_of = {role: told for role, told in artifact.manifest.inputs.items() if isinstance(told, dict)}
    # Its own documents first: the centroids that a grown corpus joined were fitted on older ones.
    for role in sorted(told_of, key=lambda role: told_of[role]["kind"] != "documents"):
        try:
            source = artifact.input(role)
        except ArtifactNotFound:  # removed from this workspace; another way may lead there
            continue
        found = source if source.kind == "documents" else _documents_behind(source)
        if found is not None:
            return found
    return None
