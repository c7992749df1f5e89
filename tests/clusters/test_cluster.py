"""The `cluster` step on planted vectors: a label for each document to train on, the same however it is run."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from kill_points import run_and_kill

from dataforge.clusters import (
    ClusterConfig,
    ExplainConfig,
    cluster,
    default_num_clusters,
    explain,
    read_explanations,
    read_labels,
    read_map,
    read_sizes,
    read_summary,
)
from dataforge.clusters.centroids import read_centroids, read_fit
from dataforge.clusters.sample import sample_rows
from dataforge.corpus import Documents, IngestConfig, append, ingest
from dataforge.embeddings import EmbedConfig, Matrix, embed, embedders
from dataforge.errors import ClusteringError, ConfigError, InputError
from dataforge.plans.labels import documents_of
from dataforge.runners import ProcessPool
from dataforge.stage import Forecast, Run
from dataforge.workspace import Artifact, Workspace

WORDS = {"dog": 0, "cat": 1, "moon": 2, "sun": 3, "机器": 4}


@dataclass(frozen=True)
class Planted:
    """Vectors that lie near the axis of a text's first word; the rest of the text moves them a little."""

    settings: EmbedConfig

    dimensions = 8
    max_chars = 1000
    window_documents = 16

    def inputs(self, workspace: Workspace, run: Run) -> dict[str, Any]:
        return {}

    def environment(self) -> dict[str, Any]:
        return {"device": "test"}

    def open(self, inputs: Any) -> Planted:
        return self

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), 8), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            noise = np.random.default_rng(list(text.encode())).standard_normal(8)
            row += 0.1 * noise
            row[WORDS[text.split()[0]]] += 1
        return rows


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedders._factories, "planted", Planted)


def write(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """A JSONL file of (source, text)."""
    told = [{"id": f"{path.stem}-{i}", "source": s, "text": t, "lang": "en"} for i, (s, t) in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
    return path


def texts(counts: dict[str, int], start: int = 0) -> list[tuple[str, str]]:
    return [(f"of-{w}", f"{w} number {start + i} barks") for w, count in counts.items() for i in range(count)]


Make = Callable[..., tuple[Artifact, Artifact]]


@pytest.fixture
def make(workspace: Workspace, tmp_path: Path) -> Make:
    """Documents and their planted vectors."""

    def made(*parts: Sequence[tuple[str, str]], holdout: float = 0.0) -> tuple[Artifact, Artifact]:
        files = [write(tmp_path / f"p{i}.jsonl", part) for i, part in enumerate(parts)]
        documents = ingest(workspace, files, name="x", config=IngestConfig(holdout=holdout))
        return documents, embed(workspace, documents, name="x", config=EmbedConfig(embedder="planted"))

    return made


def test_planted_groups_become_clusters_with_sizes_and_similarities(workspace: Workspace, make: Make) -> None:
    _, embeddings = make(texts({"dog": 60, "cat": 30}), texts({"moon": 9, "cat": 12}, 100))
    clusters = cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=3, seed=1))
    numbers, labels, similarity = (np.concatenate(told) for told in zip(*read_labels(clusters), strict=True))
    assert np.array_equal(numbers, np.arange(111))
    centroids = read_centroids(clusters.input("centroids"))
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)
    vectors = Matrix(embeddings).take(numbers).astype(np.float64)
    products = vectors @ centroids.astype(np.float64).T
    assert np.array_equal(labels, products.argmax(axis=1))
    np.testing.assert_allclose(similarity, products.max(axis=1), rtol=1e-6)
    truth = np.repeat([0, 1, 2, 1], [60, 30, 9, 12])
    assert len(set(zip(truth.tolist(), labels.tolist()))) == 3
    sizes = read_sizes(clusters)
    assert sizes.tolist() == np.bincount(labels, minlength=3).tolist()
    told = read_summary(clusters)
    assert told["sizes"] == sizes.tolist()
    assert told["imbalance"] == pytest.approx(3 * (sizes**2).sum() / 111**2, abs=1e-6)
    assert told["mean_similarity"] == pytest.approx(similarity.mean(), abs=1e-5)
    assert (clusters.counts["clusters"], clusters.counts["empty_clusters"]) == (3, 0)
    assert not clusters.verify()


def test_held_out_documents_are_neither_fitted_on_nor_members(workspace: Workspace, make: Make) -> None:
    documents, embeddings = make(texts({"dog": 80, "cat": 80}), texts({"moon": 80}), holdout=0.2)
    held = set(Documents(documents).held_out_numbers().tolist())
    assert 20 < len(held) < 80
    rows, available = sample_rows(Matrix(embeddings), 1000, seed=0)
    assert available == len(rows) == 240 - len(held)
    assert not held & set(rows.tolist())
    clusters = cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=3))
    members = {int(n) for numbers, _, _ in read_labels(clusters) for n in numbers}
    assert members == set(range(240)) - held
    assert clusters.counts["dropped"] == {"held-out": {"documents": len(held)}}
    ledger = [row for path in clusters.ledgers() for row in pq.read_table(path).to_pylist()]
    assert {row["number"] for row in ledger} == held
    assert all(row["id"] and row["file"] and row["rule"] == "held-out" for row in ledger)


def test_the_sample_is_seeded_and_has_every_source_in_proportion(make: Make) -> None:
    parts = [texts({"dog": 300, "cat": 100}, 1000 * i) + texts({"sun": 4}, 1000 * i) for i in range(2)]
    documents, embeddings = make(*parts)
    matrix = Matrix(embeddings)
    rows, available = sample_rows(matrix, 202, seed=0)
    assert available == 808
    assert np.array_equal(rows, np.unique(rows))
    sources = [row["source"] for row in Documents(documents).get(rows.tolist(), ["source"])]
    assert {name: sources.count(name) for name in set(sources)} == {"of-dog": 150, "of-cat": 50, "of-sun": 2}
    assert abs(int((rows < 404).sum()) - 101) <= 3, "and every part, within each source"
    assert np.array_equal(sample_rows(matrix, 202, seed=0)[0], rows)
    assert not np.array_equal(sample_rows(matrix, 202, seed=1)[0], rows)
    assert len(sample_rows(matrix, 0, seed=0)[0]) == 0


def test_killed_at_any_file_it_goes_on_to_the_same_content_and_so_does_a_pool(tmp_path: Path) -> None:
    parts = [texts({"dog": 20, "cat": 20}), texts({"moon": 20}), texts({"sun": 20, "dog": 5}, 50)]
    files = [write(tmp_path / f"p{i}.jsonl", part) for i, part in enumerate(parts)]
    contents = {}
    for way in ("undisturbed", "killed", "pool"):
        workspace = Workspace(tmp_path / way)
        documents = ingest(workspace, files, name="x")
        embeddings = embed(workspace, documents, name="x", config=EmbedConfig(embedder="planted"))
        config = ClusterConfig(num_clusters=4)
        if way == "killed":
            work = functools.partial(cluster, name="x", config=config)
            for at, after in ((2, False), (7, True)):
                assert run_and_kill(work, (workspace, embeddings), at=at, after=after)
        run = Run(runner=ProcessPool(2)) if way == "pool" else Run()
        clusters = cluster(workspace, embeddings, name="x", config=config, run=run)
        found = [clusters, clusters.input("centroids"), workspace.open("explanations/x")]
        assert not [problem for artifact in found for problem in artifact.verify()]
        contents[way] = tuple(artifact.content for artifact in found)
    assert len(set(contents.values())) == 1


def test_a_grown_corpus_joins_the_given_centroids_part_by_part(
    workspace: Workspace, make: Make, tmp_path: Path
) -> None:
    documents, embeddings = make(texts({"dog": 30, "cat": 30}), texts({"moon": 30}))
    first = cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=3))
    more = append(workspace, documents, [write(tmp_path / "more.jsonl", texts({"cat": 7}, 500))])
    grown = embed(workspace, more, name="x", config=EmbedConfig(embedder="planted"))
    second = cluster(workspace, grown, name="x", centroids=first.input("centroids"))
    told = json.loads((second.path / "run.json").read_text())
    assert (told["reused"], told["made"]) == (2, 1)
    old, new = (np.concatenate([labels for _, labels, _ in read_labels(each)]) for each in (first, second))
    assert np.array_equal(new[:90], old)
    assert len(set(new[90:].tolist()) | set(old[30:60].tolist())) == 1, "new cats are where the old ones are"
    assert len(workspace.artifacts("centroids")) == 1
    assert documents_of(second).id == more.id, "a plan over them draws from the grown documents"


def test_a_part_is_found_again_only_where_its_numbers_are_the_same(workspace: Workspace, tmp_path: Path) -> None:
    """The same file behind another one: its vectors are reused, its rows are not."""
    config = ClusterConfig(num_clusters=2)
    files = [write(tmp_path / name, texts({"dog": 5, "cat": 5}, i)) for i, name in enumerate(("b.jsonl", "a.jsonl"))]
    alone = ingest(workspace, files[:1], name="one")
    vectors = embed(workspace, alone, name="one", config=EmbedConfig(embedder="planted"))
    first = cluster(workspace, vectors, name="one", config=config)
    both = ingest(workspace, files, name="two")
    vectors = embed(workspace, both, name="two", config=EmbedConfig(embedder="planted"))
    second = cluster(workspace, vectors, name="two", centroids=first.input("centroids"))
    numbers = np.concatenate([numbers for numbers, _, _ in read_labels(second)])
    assert np.array_equal(numbers, np.arange(20))


def test_empty_clusters_are_counted(workspace: Workspace, make: Make, tmp_path: Path) -> None:
    _, embeddings = make(texts({"dog": 20, "cat": 20, "moon": 20}))
    centroids = cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=3)).input("centroids")
    other = ingest(workspace, [write(tmp_path / "dogs.jsonl", texts({"dog": 9}, 700))], name="dogs")
    vectors = embed(workspace, other, name="dogs", config=EmbedConfig(embedder="planted"))
    clusters = cluster(workspace, vectors, name="dogs", centroids=centroids)
    assert clusters.counts["empty_clusters"] == 2
    assert sorted(read_sizes(clusters).tolist()) == [0, 0, 9]
    assert read_summary(clusters)["cluster_mean_similarity"].count(None) == 2
    told = read_explanations(workspace.open("explanations/dogs"))
    assert [row["documents"] for row in told] == read_sizes(clusters).tolist()
    assert [row["medoids"] for row in told].count([]) == 2


def test_more_clusters_than_documents_or_distinct_vectors_are_refused(workspace: Workspace, make: Make) -> None:
    _, embeddings = make(texts({"dog": 10, "cat": 2}))
    with pytest.raises(ClusteringError) as refused:
        cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=13))
    assert "13 clusters were asked for, but there are 12 documents to fit" in str(refused.value)
    assert refused.value.where == embeddings.ref
    assert "num_clusters to 12 or less" in str(refused.value.hint)
    assert not workspace.artifacts("centroids")
    clusters = cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=12))
    assert clusters.counts["clusters"] == 12


def test_copies_leave_fewer_distinct_vectors_and_it_is_said(workspace: Workspace, make: Make) -> None:
    copies = [("a", "dog same text")] * 40 + [("a", "cat same text")] * 5
    _, embeddings = make(copies)
    with pytest.raises(ClusteringError, match="45 vectors hold 2 different ones"):
        cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=3))
    clusters = cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=2))
    assert sorted(read_sizes(clusters).tolist()) == [5, 40]
    fit = read_fit(clusters.input("centroids"))
    assert (fit["sampled"], fit["distinct"]) == (45, 2)


def test_centroids_of_another_embedder_are_refused(workspace: Workspace, make: Make) -> None:
    documents, embeddings = make(texts({"dog": 10, "cat": 10}))
    centroids = cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=2)).input("centroids")
    other = embed(workspace, documents, name="y", config=EmbedConfig(embedder="planted", max_tokens=9))
    with pytest.raises(ClusteringError, match="another embedder"):
        cluster(workspace, other, name="y", centroids=centroids)


def test_a_damaged_vector_stops_the_stage_with_its_place(workspace: Workspace, make: Make) -> None:
    _, embeddings = make(texts({"dog": 10, "cat": 10}))
    path = embeddings.file("part-00000.npy")
    rows = np.load(path)
    rows[3] = np.nan
    path.chmod(0o644)
    np.save(path, rows)
    with pytest.raises(ClusteringError, match="1 of 20 vectors are not finite, the first is number 3"):
        cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=2))
    assert not workspace.artifacts("clusters")


def test_explanations_name_words_sources_medoids_and_places(workspace: Workspace, make: Make, tmp_path: Path) -> None:
    rows = texts({"dog": 40, "cat": 25}) + [("zh", f"机器 {i}") for i in range(12)]
    documents, embeddings = make(rows, texts({"dog": 5}, 900), holdout=0.1)
    clusters = cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=6))
    told = read_explanations(workspace.open("explanations/x"))
    word = {"of-dog": "dog", "of-cat": "cat", "zh": "机器"}
    assert {word[source] for row in told for source in row["sources"]} == {row["keywords"][0] for row in told}
    for row in told:
        assert row["keywords"][0] == word[row["sources"][0]]
        assert row["langs"] == ["en"]
    assert sum(sum(row["source_documents"]) for row in told) == clusters.counts["out"]["documents"]
    by_number = {}
    for numbers, labels, similarity in read_labels(clusters):
        by_number |= {n: (label, s) for n, label, s in zip(numbers.tolist(), labels.tolist(), similarity.tolist())}
    for row in told:
        inside = sorted((-s, n) for n, (label, s) in by_number.items() if label == row["cluster"])
        assert row["medoids"] == [n for _, n in inside[:3]]
        assert row["documents"] == row["documents_read"] == len(inside), "small clusters are read whole"
        assert row["weights"] == sorted(row["weights"], reverse=True)
    places = read_map(workspace.open("explanations/x"))
    assert places["number"].to_pylist() == sorted(by_number)
    assert [by_number[n][0] for n in places["number"].to_pylist()] == places["cluster"].to_pylist()
    centre = {row["cluster"]: (row["x"], row["y"]) for row in told}
    for spot in places.to_pylist():
        gaps = {k: (x - spot["x"]) ** 2 + (y - spot["y"]) ** 2 for k, (x, y) in centre.items()}
        near = min(gaps, key=lambda k: gaps[k])
        assert told[near]["keywords"][0] == told[spot["cluster"]]["keywords"][0], "groups lie apart on the map"
    few = ExplainConfig(num_keywords=1, max_documents=1, map_documents=10)
    fewer = explain(workspace, clusters, documents, name="few", config=few)
    assert 0 < read_map(fewer).num_rows < 30
    told = read_explanations(fewer)
    assert all(len(row["keywords"]) <= 1 for row in told)
    assert 5 < sum(row["documents_read"] for row in told) < clusters.counts["out"]["documents"]
    other = ingest(workspace, [write(tmp_path / "other.jsonl", texts({"dog": 3}))], name="other")
    with pytest.raises(InputError, match="not the documents of these clusters"):
        explain(workspace, clusters, other, name="x")


def test_keywords_never_change_the_clusters_id(workspace: Workspace, make: Make) -> None:
    _, embeddings = make(texts({"dog": 20, "cat": 20}))
    config = ClusterConfig(num_clusters=2)
    plain = cluster(workspace, embeddings, name="x", config=config, explained=False)
    assert not workspace.artifacts("explanations")
    assert cluster(workspace, embeddings, name="x", config=config).id == plain.id
    assert len(workspace.artifacts("explanations")) == 1


def test_the_default_number_of_clusters_follows_the_documents(workspace: Workspace, make: Make) -> None:
    _, embeddings = make(texts({"dog": 50, "cat": 50}))
    assert cluster(workspace, embeddings, name="x").counts["clusters"] == default_num_clusters(100) == 12
    with pytest.raises(ConfigError, match="num_clusters must be at least 1, got 0"):
        ClusterConfig(num_clusters=0)
    with pytest.raises(ConfigError, match="no device 'tpu'"):
        ClusterConfig(device="tpu")


def test_a_gpu_that_is_not_there_is_said(workspace: Workspace, make: Make) -> None:
    from dataforge.clusters.kmeans import sees_gpu

    if sees_gpu():
        pytest.skip("FAISS sees a GPU here")
    _, embeddings = make(texts({"dog": 5, "cat": 5}))
    with pytest.raises(ClusteringError, match="FAISS sees no GPU"):
        cluster(workspace, embeddings, name="x", config=ClusterConfig(num_clusters=2, device="cuda"))


def test_a_dry_run_forecasts_along_the_chain(workspace: Workspace, make: Make) -> None:
    documents, embeddings = make(texts({"dog": 50, "cat": 50}))
    dry = Run(dry_run=True)
    told = cluster(workspace, embeddings, name="x", run=dry)
    assert isinstance(told, Forecast)
    assert told.documents == 100
    ahead: Any = embed(workspace, documents, name="y", config=EmbedConfig(embedder="planted", max_tokens=3), run=dry)
    assert cluster(workspace, ahead, name="y", run=dry).documents == 100
    assert not workspace.artifacts("centroids")
