"""One part more of raw text costs one part more of work in every step that works by part; old numbers stay."""

from __future__ import annotations

import json
from pathlib import Path

from dataforge.clusters import ClusterConfig, cluster
from dataforge.corpus import Documents, IngestConfig, append, ingest
from dataforge.dedup import dedup
from dataforge.embeddings import EmbedConfig, embed
from dataforge.plans.plan import PlanConfig, plan
from dataforge.rows.pack import PackConfig, pack
from dataforge.shards.tokenize import tokenize
from dataforge.tokenizers.stages import TrainTokenizerConfig, train_tokenizer
from dataforge.workspace import Artifact, Workspace

PARTS = 20


def cut(corpus: Path, folder: Path) -> list[Path]:
    """The bundled documents in files of nine or ten lines."""
    lines = [line for path in sorted(corpus.glob("*.jsonl")) for line in path.read_text("utf-8").split("\n") if line]
    files = []
    for index in range(PARTS):
        files.append(folder / f"{index:02}.jsonl")
        files[-1].write_text("\n".join(lines[index::PARTS]) + "\n", "utf-8")
    return files


def made(artifact: Artifact) -> int:
    """Parts of an artifact that its making did not find."""
    return json.loads((artifact.path / "run.json").read_text())["made"]


def test_a_twentieth_more_text_is_one_part_of_work_in_each_step(
    workspace: Workspace, corpus: Path, tmp_path: Path, tiny_model: Path
) -> None:
    files = cut(corpus, tmp_path)
    with_model = EmbedConfig(embedder="static", model=str(tiny_model), dimensions=8)
    first = ingest(workspace, files[:-1], name="old", config=IngestConfig(holdout=0.05))
    old = dedup(workspace, first, name="old")
    old_vectors = embed(workspace, old, name="old", config=with_model)
    old_clusters = cluster(workspace, old_vectors, name="old", config=ClusterConfig(num_clusters=4))
    tokenizer = train_tokenizer(workspace, old, name="old", config=TrainTokenizerConfig(vocab_size=400))
    tokenize(workspace, old, tokenizer, name="old")

    grown = append(workspace, first, files[-1:], name="new")
    new = dedup(workspace, grown, name="new")
    vectors = embed(workspace, new, name="new", config=with_model)
    centroids = old_clusters.input("centroids")
    clusters = cluster(workspace, vectors, name="new", config=ClusterConfig(num_clusters=4), centroids=centroids)
    shards = tokenize(workspace, new, tokenizer, name="new")
    hashes = workspace.open("text-hashes/new")
    explained = workspace.open("explanations/new")
    recounted = train_tokenizer(workspace, new, name="new", config=TrainTokenizerConfig(vocab_size=400))
    counts = recounted.input("counts")
    work = {artifact.kind: made(artifact) for artifact in (grown, hashes, vectors, clusters, shards, counts)}
    assert work == {
        "documents": 1,
        "text-hashes": 1,
        "embeddings": 1,
        "clusters": 1,
        "shards": 1,
        "counts": 1,
    }
    assert made(new) == 1  # no old document became a copy of a new one
    assert made(explained) <= PARTS

    before, after = Documents(old), Documents(new)
    for ours, theirs in zip(before.parts, after.parts[: PARTS - 1], strict=True):
        assert ours.numbers.tolist() == theirs.numbers.tolist()
    assert before.get([3, 77], ["id"]) == after.get([3, 77], ["id"])
    labels = dict(zip(*map(list, zip(*_labels(old_clusters), strict=True)), strict=True))
    for number, label in _labels(clusters):
        assert labels.get(number, label) == label
    rows = pack(
        workspace,
        plan(workspace, clusters, name="new", config=PlanConfig(num_draws=250)),
        shards,
        name="new",
        config=PackConfig(row_length=64),
    )
    assert rows.counts["rows"] > 0
    assert [problem for artifact in workspace.artifacts() for problem in workspace.verify(artifact)] == []


def _labels(clusters: Artifact) -> list[tuple[int, int]]:
    import pyarrow.parquet as pq

    found = []
    for part in clusters.parts(".parquet"):
        table = pq.read_table(clusters.file(part["path"]))
        found += list(zip(table["number"].to_pylist(), table["label"].to_pylist(), strict=True))
    return found
