"""Step 5: clusters become a sampling plan. All plans over the same clusters share one member index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataforge.corpus import Documents
from dataforge.errors import ConfigError, HeldOut, NothingToDo
from dataforge.make import make
from dataforge.plans.labels import check_same_root, documents_of, labelled_documents, num_clusters_of, sizes_of
from dataforge.plans.members import Members, write_members
from dataforge.plans.plan_file import write_plan
from dataforge.plans.preview import Preview, summary_lines
from dataforge.plans.sampling_plan import SamplingPlan
from dataforge.stage import Forecast, Inputs, Out, Part, PartOut, Run
from dataforge.workspace import Artifact, Counts, Workspace
from dataforge.workspace.content import digest_of

__all__ = ["MakePlan", "PlanConfig", "open_plan", "plan", "preview", "refuse_held_out", "summary_lines"]

I64 = NDArray[np.int64]

_MEMBERS_VERSION = 1
_NO_CLUSTER = "no-cluster"


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """How a run is shared over clusters. Every field is part of the plan's id."""

    sampler: str = "clusterclip"
    """`clusterclip`, `unimax`, `uniform`, `proportional` (also `random`) or `temperature`."""
    num_draws: int | None = None
    """Documents to draw in all, repeats included. Give this, `num_tokens` or `epochs`."""
    num_tokens: int | None = None
    """Tokens to draw in all: shares are solved in tokens, then divided by the mean length of a cluster's documents."""
    epochs: float | None = None
    """Draws as a multiple of the number of documents."""
    max_repeats: int | None = 4
    """Most times one document may be drawn."""
    seed: int = 0
    """Keys the order. How much each cluster gives does not depend on it."""
    schedule: Literal["progressive", "stationary"] | None = None
    """`progressive`: small clusters give at full rate until they are clipped; `stationary`: one mixture from start to
    end. The sampler's own if not given."""
    alpha: float | None = None
    """Exponent of `temperature`: 1 is proportional, 0 equal shares."""
    boosts: Mapping[str, float] = field(default_factory=dict)
    """Cluster -> factor on its weight: {"17": 2.0}."""
    floors: Mapping[str, int] = field(default_factory=dict)
    """Cluster -> fewest draws (tokens, with `num_tokens`)."""
    ceilings: Mapping[str, int] = field(default_factory=dict)
    """Cluster -> most draws (tokens, with `num_tokens`)."""
    bytes_per_token: float = 4.0
    """With `num_tokens` and no shards: how many bytes of text count as a token."""

    def __post_init__(self) -> None:
        given = [name for name in ("num_draws", "num_tokens", "epochs") if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"{' and '.join(given)} are both given" if given else "no length is given for the run"
            raise ConfigError(
                what, hint="give exactly one of num_draws, num_tokens and epochs (epochs = 1.0 is a pass)"
            )
        if getattr(self, given[0]) <= 0:
            raise ConfigError(f"{given[0]} must be above 0, got {getattr(self, given[0])}")
        if self.max_repeats is not None and self.max_repeats < 1:
            raise ConfigError(f"max_repeats must be at least 1, got {self.max_repeats}")
        if not self.bytes_per_token > 0:
            raise ConfigError(f"bytes_per_token must be above 0, got {self.bytes_per_token}")
        for name in ("boosts", "floors", "ceilings"):
            for cluster in getattr(self, name):
                if not cluster.isdecimal():
                    raise ConfigError(
                        f"{name} names {cluster!r}, which is no cluster", hint="clusters are whole numbers"
                    )

    def build(self, sizes_C: I64, *, mean_tokens: NDArray[np.float64] | None = None, where: str) -> SamplingPlan:
        """The plan over clusters of these sizes."""
        return SamplingPlan.build(
            sizes_C,
            sampler=self.sampler,
            num_draws=self.num_draws,
            num_tokens=self.num_tokens,
            epochs=self.epochs,
            max_repeats=self.max_repeats,
            seed=self.seed,
            mean_tokens=mean_tokens,
            schedule=self.schedule,
            boosts={int(cluster): factor for cluster, factor in self.boosts.items()},
            floors=_per_cluster("floors", self.floors, len(sizes_C), 0),
            ceilings=_per_cluster("ceilings", self.ceilings, len(sizes_C), np.iinfo(np.int64).max),
            where=where,
            **({} if self.alpha is None else {"alpha": self.alpha}),
        )


@dataclass(frozen=True)
class MakePlan:
    """The stage: the member index as its one part, then `plan.json`."""

    config: PlanConfig
    kind = "plans"
    step = "plan"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        # The index knows nothing of the config: the next plan over these clusters finds it and links it.
        made_of = [inputs["clusters"].content, inputs["documents"].content]
        return [Part("members.bin", digest_of(["plans", "members", _MEMBERS_VERSION, *made_of]))]

    def open_worker(self, inputs: Inputs) -> Inputs:
        return inputs

    def run_part(self, worker: Inputs, part: Part, out: PartOut) -> Counts:
        clusters, documents = worker["clusters"], Documents(worker["documents"])
        check_same_root(clusters, documents)
        counts = Counts(taken={"documents": 0}, made={"documents": 0})

        def labelled() -> Iterator[tuple[I64, I64]]:
            counts.taken["documents"] = 0  # asked for twice
            for batch in labelled_documents(clusters, documents):
                counts.taken["documents"] += len(batch.numbers)
                there = batch.labels >= 0
                yield batch.numbers[there], batch.labels[there]

        members = write_members(out.path, num_clusters_of(clusters), labelled)
        counts.made["documents"] = members.num_documents
        if members.num_documents < counts.taken["documents"]:
            for batch in labelled_documents(clusters, documents):
                lost = batch.numbers[batch.labels < 0].tolist()
                for row in documents.get(lost, ["id", "file", "position"]):
                    counts.drop(_NO_CLUSTER, documents=1)
                    out.drop(_NO_CLUSTER, **row)
        if not members.num_documents:
            raise NothingToDo(
                f"none of the {counts.taken['documents']:,} documents that may be drawn has a cluster",
                where=clusters.ref,
                hint="cluster the documents that the plan is to draw",
            )
        refuse_held_out(members, documents)
        return counts

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        clusters: Artifact = inputs["clusters"]
        members = Members(out.folder / "members.bin")
        means = None
        if self.config.num_tokens is not None:
            means = _mean_tokens(self.config, clusters, Documents(inputs["documents"]), inputs.get("shards"))
        made = self.config.build(members.sizes_C, mean_tokens=means, where=clusters.ref)
        if out.has("plan.json"):
            out.keep("plan.json")
        else:
            with out.write("plan.json") as path:
                write_plan(made, path)
        told = {
            "draws": made.num_draws,
            "clusters": made.num_clusters,
            "empty_clusters": int((made.sizes_C == 0).sum()),
            "clipped_clusters": int(made.clipped_C.sum()),
        }
        return Counts(extra=told)


def plan(
    workspace: Workspace,
    clusters: Artifact,
    *,
    name: str,
    documents: Artifact | None = None,
    shards: Artifact | None = None,
    config: PlanConfig | None = None,
    run: Run | None = None,
) -> Artifact:
    """A sampling plan over the documents of a clusters artifact.

    No plan can draw a held-out document: the member index holds none, and one with a label is an error. Documents that
    have no cluster (added after clustering) are counted and listed as dropped.

    Args:
        workspace: where the artifact goes.
        clusters: labels of documents.
        name: the artifact's name.
        documents: which documents may be drawn: those that were clustered, or what a later filter kept of them; if not
            given, those that the clusters were made from.
        shards: token lengths of the documents, for a budget in tokens; bytes are counted where they are not given.
        config: sampler, budget, cap, seed.
        run: where to run.
    Raises:
        PlanInfeasible: the budget cannot be met; the hint says what could.
        ConfigError: the budget is missing or a setting is out of range.
        HeldOut: a held-out document has a label.
        InputError: documents and clusters do not belong together.
    """
    config = config or PlanConfig()
    inputs: dict[str, Any] = {"clusters": clusters}
    if documents is not None or not isinstance(clusters, Forecast):
        inputs["documents"] = documents or documents_of(clusters)
    if shards is not None and config.num_tokens is not None:  # else lengths change nothing, and must not change the id
        inputs["shards"] = shards
    return make(workspace, MakePlan(config), inputs, name=name, run=run)


def preview(
    clusters: Artifact, config: PlanConfig, *, documents: Artifact | None = None, shards: Artifact | None = None
) -> Preview:
    """What a plan would do, without making it: from the clusters' sizes, nothing is written.

    Where `documents` are not those that were clustered, the labels are counted in one streaming pass.
    """
    kept = Documents(documents or documents_of(clusters))
    check_same_root(clusters, kept)
    means = _mean_tokens(config, clusters, kept, shards) if config.num_tokens is not None else None
    return config.build(sizes_of(clusters, kept), mean_tokens=means, where=clusters.ref).preview()


def open_plan(artifact: Artifact) -> SamplingPlan:
    """The plan of a plans artifact, with its member index mapped."""
    return SamplingPlan.open(artifact)


def refuse_held_out(members: Members, documents: Documents) -> None:
    """Raise HeldOut if a member index names a held-out document: such an index must not become a plan."""
    held = documents.held_out_numbers()
    if not held.size:
        return
    for numbers in members.pieces():
        at = np.minimum(np.searchsorted(held, numbers), held.size - 1)
        named = numbers[held[at] == numbers]
        if named.size:
            raise HeldOut(
                f"the member index names document {int(named[0]):,}, which is held out",
                where=documents.artifact.ref,
                hint="plans draw training documents only: make the index from labels of those",
            )


def _mean_tokens(
    config: PlanConfig, clusters: Artifact, documents: Documents, shards: Artifact | None
) -> NDArray[np.float64]:
    """Mean tokens of a document in each cluster, shape (C,), 0 for an empty one."""
    size_C, tokens_C = np.zeros(num_clusters_of(clusters), np.int64), np.zeros(num_clusters_of(clusters), np.int64)
    reader = None
    if shards is not None:
        from dataforge.shards import Shards

        reader = Shards(shards)
    for batch in labelled_documents(clusters, documents, () if reader else ("text",)):
        there = batch.labels >= 0
        labels = batch.labels[there]
        if reader is not None:
            lengths = reader.lengths(batch.numbers[there])
        else:
            lengths = pc.binary_length(batch.columns.column("text")).to_numpy()[there]
        size_C += np.bincount(labels, minlength=len(size_C))
        np.add.at(tokens_C, labels, lengths.astype(np.int64))
    per_token = 1.0 if reader else config.bytes_per_token
    return tokens_C / per_token / np.maximum(size_C, 1)


def _per_cluster(name: str, given: Mapping[str, int], num_clusters: int, default: int) -> I64 | None:
    """One number for each cluster from those that were given; None if none were."""
    if not given:
        return None
    values = np.full(num_clusters, default, np.int64)
    for cluster, value in given.items():
        if int(cluster) >= num_clusters:
            raise ConfigError(f"{name} names cluster {cluster}", hint=f"clusters run from 0 to {num_clusters - 1}")
        values[int(cluster)] = value
    return values
