"""A small workspace with shards, a plan and rows, and the token sequence they must give, made the plain way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataforge.plans import SamplingPlan
from dataforge.plans.members import write_members
from dataforge.rows.pack import PackConfig, pack
from dataforge.shards import ShardWriter, write_index
from dataforge.workspace import Artifact, Manifest, Workspace


@dataclass
class Chain:
    """What was made, and the truth about it."""

    workspace: Workspace
    shards: Artifact
    plan: Artifact
    documents: dict[int, list[int]]
    """Number -> token ids, end of text included."""
    drawn: list[int]
    """Document number of every draw."""
    sequence: list[int]
    """Tokens of all draws, one behind the other."""
    origin: list[tuple[int, int]]
    """(document number, offset in it) of every token of the sequence."""

    def pack(self, row_length: int, name: str = "tiny") -> Artifact:
        return pack(self.workspace, self.plan, self.shards, name=name, config=PackConfig(row_length=row_length))

    def row(self, index: int, row_length: int) -> list[int]:
        return self.sequence[index * row_length : index * row_length + row_length + 1]


def artifact_of(workspace: Workspace, kind: str, fill, name: str = "tiny", number: int = 0) -> Artifact:
    """An artifact with a made-up manifest around files that `fill(folder)` writes."""
    artifact_id = f"{number:02d}{kind[:1].encode().hex()}{'0' * 8}"
    folder = workspace.path / kind / f"{name}@{artifact_id}"
    folder.mkdir(parents=True)
    fill(folder)
    digest = "sha256:" + f"{number:02d}" + kind.encode().hex().ljust(62, "0")[:62]
    manifest = Manifest(kind, artifact_id, 1, {}, {}, {}, [], digest)
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json()))
    return Artifact.at(folder)


def make_chain(
    folder: Path,
    *,
    seed: int = 0,
    parts: int = 3,
    documents: int = 60,
    longest: int = 60,
    vocab_size: int = 5000,
    num_draws: int = 300,
    eos_id: int | None = 0,
    number: int = 0,
) -> Chain:
    """Random documents in clusters, drawn by a ClusterClip plan. Documents may be empty; one document is held out."""
    rng = np.random.default_rng(seed)
    workspace = Workspace(folder / "workspace")
    held: dict[int, list[int]] = {}

    def shards(path: Path) -> None:
        files = [path / f"part-{i:05d}.tok" for i in range(parts)]
        next_number = 0
        for file in files:
            with ShardWriter(file, vocab_size=vocab_size, fingerprint=bytes(range(32)), eos_id=eos_id) as writer:
                for _ in range(documents):
                    next_number += int(rng.integers(1, 3))
                    ids = rng.integers(0, vocab_size, int(rng.integers(0, longest)))
                    writer.add(next_number, ids, 2 * ids.size)
                    held[next_number] = ids.tolist() + ([] if eos_id is None else [eos_id])
        write_index(path / "index.tok", files)

    shards_artifact = artifact_of(workspace, "shards", shards, number=number)
    numbers = np.array(sorted(held))[1:]  # the first is held out: no cluster has it
    labels = rng.integers(0, 5, numbers.size)
    plan = SamplingPlan.build(np.bincount(labels, minlength=5), num_draws=num_draws, max_repeats=9, seed=seed)

    def write_plan(path: Path) -> None:
        plan.save(path)
        write_members(path / "members.bin", 5, lambda: [(numbers, labels)])

    plan_artifact = artifact_of(workspace, "plans", write_plan, number=number)
    opened = SamplingPlan.open(plan_artifact)
    cluster, inside, _ = opened.at(np.arange(num_draws))
    drawn = opened.document_numbers(cluster, inside).tolist()
    sequence = [token for document in drawn for token in held[document]]
    origin = [(document, offset) for document in drawn for offset in range(len(held[document]))]
    return Chain(workspace, shards_artifact, plan_artifact, held, drawn, sequence, origin)
