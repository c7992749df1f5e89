"""The artifacts that a report is about: those asked for, all they were made from, and what explains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dataforge.errors import ArtifactNotFound
from dataforge.steps import STEPS
from dataforge.workspace import Artifact, Workspace

KINDS = (
    "documents", "text-hashes", "duplicates", "static-vectors", "embeddings", "centroids", "clusters", "explanations",
    "counts", "tokenizers", "shards", "plans", "rows", "checkpoints",
)  # fmt: skip
"""In the order of the chain."""

_STEP_OF = {
    "text-hashes": "dedup", "duplicates": "dedup", "static-vectors": "embed", "centroids": "cluster",
    "explanations": "cluster", "counts": "train-tokenizer",
} | {step.kind: step.name for step in STEPS.values() if step.kind != "documents"}  # fmt: skip


@dataclass(frozen=True)
class Chain:
    """Whole artifacts of one workspace, each after what it was made from."""

    workspace: Workspace
    artifacts: tuple[Artifact, ...]
    asked_for: tuple[Artifact, ...]

    @classmethod
    def of(cls, workspace: Workspace, refs: str | Artifact | Sequence[str | Artifact] | None = None) -> Chain:
        """The chain that leads to some artifacts.

        Args:
            workspace: where they are.
            refs: one artifact or reference, or several; None takes the newest checkpoint, or else the newest artifact.
        Raises:
            ArtifactNotFound: nothing of that name, or the workspace is empty.
        """
        given = [newest(workspace)] if refs is None else [refs] if isinstance(refs, str | Artifact) else list(refs)
        asked_for = tuple(workspace.open(ref) for ref in given)
        found: dict[str, Artifact] = {}
        for artifact in asked_for:
            found |= {a.id: a for a in workspace.lineage(artifact)}
        clusters = {a.id for a in found.values() if a.kind == "clusters"}
        for artifact in workspace.artifacts("explanations"):
            if clusters & {told["id"] for told in artifact.manifest.inputs.values() if isinstance(told, dict)}:
                found |= {a.id: a for a in workspace.lineage(artifact)}
        return cls(workspace, tuple(_in_order(list(found.values()))), asked_for)

    def one(self, kind: str) -> Artifact | None:
        """The last artifact of a kind: of documents, those that were kept in the end."""
        found = [artifact for artifact in self.artifacts if artifact.kind == kind]
        return found[-1] if found else None

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of the checkpoint's metrics, one a step; none without a checkpoint."""
        checkpoint = self.one("checkpoints")
        if checkpoint is None:
            return []
        from dataforge.trainer.metrics import METRICS, read_metrics

        return read_metrics(checkpoint.file(METRICS))


def newest(workspace: Workspace) -> Artifact:
    """The newest checkpoint, or without one the newest artifact. Raises ArtifactNotFound in an empty workspace."""
    for kind in ("checkpoints", None):
        found = workspace.artifacts(kind)
        if found:
            return max(found, key=lambda a: ((a.path / "manifest.json").stat().st_mtime_ns, _place(a), a.id))
    raise ArtifactNotFound(
        "there is nothing to report on", where=str(workspace.path), hint="`dataforge run RECIPE` makes something"
    )


def step_of(artifact: Artifact) -> str:
    """The command that makes such an artifact."""
    if artifact.kind == "documents":
        return "dedup" if "duplicates" in artifact.manifest.inputs else "ingest"
    return _STEP_OF.get(artifact.kind, artifact.kind)


def _place(artifact: Artifact) -> int:
    return KINDS.index(artifact.kind) if artifact.kind in KINDS else len(KINDS)


def _in_order(artifacts: list[Artifact]) -> list[Artifact]:
    """By kind in the order of the chain, and each after what it was made from."""
    waiting = sorted(artifacts, key=lambda a: (_place(a), a.ref))
    done: set[str] = set()
    ordered: list[Artifact] = []
    here = {a.id for a in artifacts}
    while waiting:
        for artifact in waiting:
            inputs = {told["id"] for told in artifact.manifest.inputs.values() if isinstance(told, dict)}
            if not (inputs & here) - done:
                break
        waiting.remove(artifact)
        done.add(artifact.id)
        ordered.append(artifact)
    return ordered
