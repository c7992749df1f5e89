"""The steps of the chain by name: what each needs and makes, and where its function is. Nothing is imported here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dataforge.registry import unknown


@dataclass(frozen=True)
class Step:
    """One step. Its function is `function(workspace, *inputs, name=, config=, run=) -> Artifact`."""

    name: str
    """The command's name, `train-tokenizer`; in a recipe the table's."""
    kind: str
    """Kind of the artifact it makes."""
    module: str
    function: str
    config: str
    inputs: tuple[str, ...]
    """Roles of the artifacts it reads, in the order of the function's arguments; the kind is in `KINDS`."""
    help: str

    def load(self) -> Callable[..., Any]:
        """The step's function."""
        return getattr(importlib.import_module(self.module), self.function)

    def config_class(self) -> type:
        """The dataclass of the step's settings."""
        return getattr(importlib.import_module(self.module), self.config)


KINDS = {
    "documents": "documents",
    "embeddings": "embeddings",
    "centroids": "centroids",
    "clusters": "clusters",
    "plan": "plans",
    "tokenizer": "tokenizers",
    "shards": "shards",
    "rows": "rows",
}
"""Role of an input -> its kind."""

STEPS = {
    step.name: step
    for step in (
        Step("ingest", "documents", "dataforge.corpus.ingest", "ingest", "IngestConfig", (), "raw files to documents"),
        Step("dedup", "documents", "dataforge.dedup.dedup", "dedup", "DedupConfig", ("documents",), "leave out copies"),
        Step(
            "embed", "embeddings", "dataforge.embeddings.embed", "embed", "EmbedConfig", ("documents",),
            "documents to vectors",
        ),
        Step(
            "cluster", "clusters", "dataforge.clusters.cluster", "cluster", "ClusterConfig", ("embeddings",),
            "vectors to clusters, explained by keywords",
        ),
        Step(
            "train-tokenizer", "tokenizers", "dataforge.tokenizers.stages", "train_tokenizer", "TrainTokenizerConfig",
            ("documents",), "a Scaffold-BPE or BPE vocabulary from documents",
        ),
        Step(
            "tokenize", "shards", "dataforge.shards.tokenize", "tokenize", "TokenizeConfig", ("documents", "tokenizer"),
            "documents to token shards",
        ),
        Step("plan", "plans", "dataforge.plans.plan", "plan", "PlanConfig", ("clusters",), "which document is draw i"),
        Step("pack", "rows", "dataforge.rows.pack", "pack", "PackConfig", ("plan", "shards"), "which tokens are row i"),
        Step("train", "checkpoints", "dataforge.trainer.train", "train", "TrainConfig", ("rows",), "a MoE from rows"),
    )
}  # fmt: skip
"""Name -> step, in the order of a run."""


def step_named(name: str) -> Step:
    """The step called `name`. Raises UnknownName with the nearest."""
    if name not in STEPS:
        raise unknown("step", name, STEPS)
    return STEPS[name]
