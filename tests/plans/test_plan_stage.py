"""The plan step on real documents: members, held-out documents, drops, reuse, kills, budgets in tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from kill_points import run_and_kill

from dataforge.cli.diff_command import command as diff_command
from dataforge.corpus import Documents, IngestConfig, append, ingest
from dataforge.dedup import dedup
from dataforge.errors import ConfigError, CorruptData, FormatError, HeldOut, InputError, PlanInfeasible
from dataforge.make import make
from dataforge.plans import SamplingPlan
from dataforge.plans.labels import labelled_documents
from dataforge.plans.members import write_members
from dataforge.plans.plan import MakePlan, PlanConfig, open_plan, plan, preview, refuse_held_out
from dataforge.runners import ProcessPool
from dataforge.stage import Forecast, Inputs, Out, Part, PartOut, Run, part_key
from dataforge.workspace import Artifact, Counts, Workspace

NUM_CLUSTERS = 7
DRAWS = PlanConfig(num_draws=300)


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    clusters: int = NUM_CLUSTERS
    only_below: int = 1 << 60
    held_out_too: bool = False
    broken: str = ""


@dataclass(frozen=True)
class Label:
    """A clusters artifact as the cluster step writes it, labels by arithmetic: clusters 0, 3 and 4 stay empty."""

    config: LabelConfig
    kind = "clusters"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        parts = Documents(inputs["documents"]).parts
        return [Part(f"{part.stem}.parquet", part_key(self, part.content), {"part": part}) for part in parts]

    def open_worker(self, inputs: Inputs) -> None:
        return None

    def run_part(self, worker: None, part: Part, out: PartOut) -> Counts:
        mine = part.payload["part"]
        numbers = mine.numbers[~mine.column("held_out").to_numpy(zero_copy_only=False) | self.config.held_out_too]
        numbers = numbers[numbers < self.config.only_below]
        labels = label_of(numbers)
        if self.config.broken == "order":
            numbers = numbers[::-1]
        if self.config.broken == "label":
            labels = labels + self.config.clusters
        schema = pa.schema([("number", pa.int64()), ("label", pa.int32()), ("similarity", pa.float32())])
        columns = [numbers, labels.astype(np.int32), np.ones(len(numbers), np.float32)]
        pq.write_table(pa.table(columns, schema=schema), out.path)
        return Counts(made={"documents": len(numbers)})

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        return Counts(extra={"clusters": self.config.clusters})


def label_of(numbers: np.ndarray) -> np.ndarray:
    label = (numbers * numbers + 1) % NUM_CLUSTERS % 6
    return np.where(label == 3, 6, label)


def cluster(workspace: Workspace, documents: Artifact, **config: Any) -> Artifact:
    return make(workspace, Label(LabelConfig(**config)), {"documents": documents}, name="tiny")


@pytest.fixture
def clusters(workspace: Workspace, documents: Artifact) -> Artifact:
    return cluster(workspace, documents)


def test_members_are_the_training_documents_of_each_cluster(
    workspace: Workspace, documents: Artifact, clusters: Artifact
) -> None:
    made = plan(workspace, clusters, name="tiny", config=DRAWS)
    opened = open_plan(made)
    training = Documents(documents).training_numbers()
    assert opened.members is not None
    for c in range(NUM_CLUSTERS):
        start, stop = opened.members.offsets[c : c + 2]
        assert opened.members.numbers[start:stop].tolist() == training[label_of(training) == c].tolist()
    assert opened.sizes_C.tolist() == np.bincount(label_of(training), minlength=NUM_CLUSTERS).tolist()
    assert made.counts["in"] == made.counts["out"] == {"documents": len(training)}
    assert made.counts["draws"] == opened.num_draws == 300
    assert made.counts["empty_clusters"] == int((opened.sizes_C == 0).sum()) > 0
    assert workspace.verify(made) == []
    assert made.input("documents").id == documents.id


def test_no_draw_is_a_held_out_document(workspace: Workspace, documents: Artifact, clusters: Artifact) -> None:
    held = Documents(documents).held_out_numbers()
    assert held.size
    opened = open_plan(plan(workspace, clusters, name="tiny", config=PlanConfig(epochs=4.0)))
    cluster_of, inside, _ = opened.at(np.arange(opened.num_draws))
    numbers = opened.document_numbers(cluster_of, inside)
    assert not np.isin(numbers, held).any()
    assert np.array_equal(label_of(numbers), cluster_of)
    drawn, times = np.unique(numbers, return_counts=True)
    assert np.array_equal(drawn, Documents(documents).training_numbers())
    assert (times == 4).all()


def test_labels_of_a_held_out_document_are_refused(workspace: Workspace, documents: Artifact) -> None:
    held = Documents(documents).held_out_numbers()
    leaking = cluster(workspace, documents, held_out_too=True)
    with pytest.raises(HeldOut, match=f"document {held[0]} is held out and has a cluster"):
        plan(workspace, leaking, name="tiny", config=DRAWS)
    assert workspace.artifacts("plans") == []


def test_documents_held_out_after_clustering_are_refused(workspace: Workspace, corpus: Path) -> None:
    clusters = cluster(workspace, ingest(workspace, [corpus], name="free"))
    held = ingest(workspace, [corpus], name="held", config=IngestConfig(holdout=0.05))
    with pytest.raises(InputError, match="whose numbers mean other texts"):
        plan(workspace, clusters, documents=held, name="tiny", config=DRAWS)


def test_an_index_that_names_a_held_out_document_is_refused(documents: Artifact, tmp_path: Path) -> None:
    kept = Documents(documents)
    held = kept.held_out_numbers()
    numbers = np.sort(np.append(kept.training_numbers()[:50], held[1]))
    index = write_members(tmp_path / "members.bin", 1, lambda: [(numbers, np.zeros(51, np.int64))])
    with pytest.raises(HeldOut, match=f"the member index names document {held[1]}, which is held out"):
        refuse_held_out(index, kept)
    clean = write_members(
        tmp_path / "clean.bin", 1, lambda: [(kept.training_numbers(), np.zeros(len(kept.training_numbers()), np.int64))]
    )
    refuse_held_out(clean, kept)


def test_a_reason_names_the_document_and_its_cluster(workspace: Workspace, clusters: Artifact) -> None:
    opened = open_plan(plan(workspace, clusters, name="tiny", config=DRAWS))
    for position in (0, 150, 299):
        told = opened.reason(position)
        assert int(label_of(np.array([told["document"]]))[0]) == told["cluster"]


def test_documents_without_a_cluster_are_dropped_and_listed(workspace: Workspace, documents: Artifact) -> None:
    made = plan(workspace, cluster(workspace, documents, only_below=120), name="tiny", config=DRAWS)
    training = Documents(documents).training_numbers()
    lost = training[training >= 120].tolist()
    assert made.counts["dropped"] == {"no-cluster": {"documents": len(lost)}}
    ledger = [row for path in made.ledgers() for row in pq.read_table(path).to_pylist()]
    assert [row["number"] for row in ledger] == lost
    assert all(row["stage"] == "plan" and row["rule"] == "no-cluster" and row["id"] for row in ledger)


def test_documents_filtered_after_clustering_are_not_drawn(workspace: Workspace, corpus: Path) -> None:
    ingested = ingest(workspace, [corpus], name="tiny", config=IngestConfig(holdout=0.05))
    clusters = cluster(workspace, ingested)
    kept = dedup(workspace, ingested, name="tiny")
    opened = open_plan(
        plan(workspace, clusters, documents=kept, name="tiny", config=PlanConfig(epochs=1.0, max_repeats=1))
    )
    drawn = opened.document_numbers(*opened.at(np.arange(opened.num_draws))[:2])
    assert np.array_equal(np.sort(drawn), Documents(kept).training_numbers())
    assert opened.num_documents < open_plan(plan(workspace, clusters, name="tiny", config=DRAWS)).num_documents


def test_documents_appended_after_clustering_keep_their_numbers_apart(
    workspace: Workspace, corpus: Path, tmp_path: Path
) -> None:
    first = ingest(workspace, [corpus], name="tiny")
    clusters = cluster(workspace, first)
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"id": f"n{i}", "text": f"new {i}"}) + "\n" for i in range(5)))
    grown = append(workspace, first, [more])
    made = plan(workspace, clusters, documents=grown, name="tiny", config=DRAWS)
    assert made.counts["dropped"] == {"no-cluster": {"documents": 5}}


def test_documents_of_another_corpus_are_refused(workspace: Workspace, clusters: Artifact, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"id": f"n{i}", "text": f"new {i}"}) + "\n" for i in range(200)))
    foreign = ingest(workspace, [other], name="other")
    with pytest.raises(InputError, match="whose numbers mean other texts"):
        plan(workspace, clusters, documents=foreign, name="tiny", config=DRAWS)


@pytest.mark.parametrize(("broken", "what"), [("order", "do not ascend"), ("label", "there are 7 clusters")])
def test_damaged_labels_are_refused(workspace: Workspace, documents: Artifact, broken: str, what: str) -> None:
    with pytest.raises(CorruptData, match=what):
        plan(workspace, cluster(workspace, documents, broken=broken), name="tiny", config=DRAWS)


# Identity, reuse, kills


def test_the_next_plan_over_the_same_clusters_links_the_member_index(workspace: Workspace, clusters: Artifact) -> None:
    first = plan(workspace, clusters, name="a", config=DRAWS)
    second = plan(workspace, clusters, name="b", config=PlanConfig(num_draws=301, sampler="proportional"))
    assert first.id != second.id
    assert first.file("members.bin").stat().st_ino == second.file("members.bin").stat().st_ino
    assert json.loads((second.path / "run.json").read_text())["reused"] == 1
    assert plan(workspace, clusters, name="c", config=DRAWS).id == first.id


def test_the_same_plan_has_the_same_content_in_another_workspace_and_from_a_pool(
    workspace: Workspace, clusters: Artifact, corpus: Path, tmp_path: Path
) -> None:
    here = plan(workspace, clusters, name="tiny", config=DRAWS)
    other = Workspace(tmp_path / "other")
    documents = dedup(other, ingest(other, [corpus], name="t", config=IngestConfig(holdout=0.05)), name="t")
    there = plan(other, cluster(other, documents), name="t", config=DRAWS, run=Run(runner=ProcessPool(1)))
    assert (here.id, here.content) == (there.id, there.content)


def chain(workspace: str, documents: Artifact) -> None:
    opened = Workspace(workspace)
    plan(opened, cluster(opened, documents), name="killed", config=DRAWS)


def test_a_plan_killed_at_every_publish_point_ends_in_the_same_content(
    workspace: Workspace, documents: Artifact, clusters: Artifact
) -> None:
    wanted = plan(workspace, clusters, name="tiny", config=DRAWS).content
    folder = workspace.open("plans/tiny").path
    for at in range(1, 9):
        for path in [*folder.iterdir()]:
            path.unlink()
        killed = run_and_kill(chain, (str(workspace.path), documents), at, after=at % 2 == 0)
        chain(str(workspace.path), documents)
        assert workspace.open("plans/killed").content == wanted
        assert workspace.verify("plans/killed") == []
        if not killed:
            break
    assert at > 3


def test_a_torn_member_index_is_refused(workspace: Workspace, clusters: Artifact) -> None:
    made = plan(workspace, clusters, name="tiny", config=DRAWS)
    path = made.file("members.bin")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FormatError, match="cut short or damaged"):
        open_plan(made)
    assert workspace.verify(made)


def test_a_dry_run_makes_nothing(workspace: Workspace, clusters: Artifact) -> None:
    told = plan(workspace, clusters, name="tiny", config=DRAWS, run=Run(dry_run=True))
    assert isinstance(told, Forecast)
    assert told.parts == 1
    assert workspace.artifacts("plans") == []
    ahead = plan(workspace, told, name="tiny", config=DRAWS, run=Run(dry_run=True))
    assert isinstance(ahead, Forecast)


def test_the_diff_command_prints_what_changes(workspace: Workspace, clusters: Artifact) -> None:
    refs = [plan(workspace, clusters, name=f"n{n}", config=PlanConfig(num_draws=n)).ref for n in (300, 310)]
    done = CliRunner().invoke(diff_command, [*refs, "--workspace", str(workspace.path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["settings"] == {"budget": [300, 310]}


# Budgets and settings


def test_a_budget_is_needed_and_only_one() -> None:
    with pytest.raises(ConfigError) as refused:
        PlanConfig()
    assert "no length is given" in refused.value.what
    assert "num_draws, num_tokens and epochs" in str(refused.value.hint)
    with pytest.raises(ConfigError, match="num_draws and num_tokens are both given"):
        PlanConfig(num_draws=5, num_tokens=5)
    wrong: list[dict[str, Any]] = [
        {"num_draws": 0},
        {"epochs": -1.0},
        {"num_draws": 5, "max_repeats": 0},
        {"num_draws": 5, "bytes_per_token": 0.0},
        {"num_draws": 5, "boosts": {"x": 2.0}},
    ]
    for settings in wrong:
        with pytest.raises(ConfigError, match=list(settings)[-1]):
            PlanConfig(**settings)


def test_an_infeasible_budget_names_the_clusters(workspace: Workspace, clusters: Artifact) -> None:
    num = open_plan(plan(workspace, clusters, name="tiny", config=DRAWS)).num_documents
    with pytest.raises(PlanInfeasible) as refused:
        plan(workspace, clusters, name="tiny", config=PlanConfig(num_draws=10 * num))
    assert refused.value.where == clusters.ref
    assert refused.value.hint == f"raise `max_repeats` to 10 or lower `num_draws` to {4 * num:,}"
    assert len(workspace.artifacts("plans")) == 1


def test_tokens_are_counted_by_bytes_where_there_are_no_shards(
    workspace: Workspace, documents: Artifact, clusters: Artifact
) -> None:
    config = PlanConfig(num_tokens=20_000, bytes_per_token=3.0)
    opened = open_plan(plan(workspace, clusters, name="tiny", config=config))
    sizes = np.zeros(NUM_CLUSTERS)
    for part in Documents(documents).parts:
        for numbers, batch in part.batches(["text"], held_out=False):
            for number, text in zip(numbers, batch.column("text").to_pylist(), strict=True):
                sizes[label_of(np.array([number]))[0]] += len(text.encode())
    expected = opened.preview().expected_tokens
    assert opened.tokens_C is not None
    assert expected is not None
    assert np.abs(opened.tokens_C - sizes / 3).max() <= 0.5
    assert abs(expected - 20_000) <= (sizes / 3 / np.maximum(opened.sizes_C, 1)).sum()


def test_boosts_floors_and_ceilings_are_settings(workspace: Workspace, clusters: Artifact) -> None:
    config = PlanConfig(num_draws=60, boosts={"5": 3.0}, floors={"1": 30}, ceilings={"2": 1})
    draws = open_plan(plan(workspace, clusters, name="tiny", config=config)).draws_per_cluster
    assert draws[1] == 30
    assert draws[2] == 1
    assert 2 * draws[6] < draws[5] < 4 * draws[6]
    with pytest.raises(ConfigError, match="floors names cluster 70"):
        plan(workspace, clusters, name="tiny", config=PlanConfig(num_draws=60, floors={"70": 1}))


def test_a_preview_of_clusters_is_that_of_the_plan(workspace: Workspace, clusters: Artifact) -> None:
    told = preview(clusters, DRAWS)
    assert workspace.artifacts("plans") == []
    assert told.to_json() == open_plan(plan(workspace, clusters, name="tiny", config=DRAWS)).preview().to_json()


def test_labels_come_in_batches_with_the_columns_asked_for(documents: Artifact, clusters: Artifact) -> None:
    kept = Documents(documents)
    texts: list[str] = []
    for batch in labelled_documents(clusters, kept, ("text",)):
        assert np.array_equal(batch.labels, label_of(batch.numbers))
        texts += batch.columns.column("text").to_pylist()
    assert texts == [row["text"] for row in kept.get(kept.training_numbers().tolist(), ["text"])]


def test_the_stage_names_its_parts_before_it_runs(documents: Artifact, clusters: Artifact) -> None:
    inputs = {"clusters": clusters, "documents": documents}
    assert MakePlan(DRAWS).split(inputs) == MakePlan(PlanConfig(num_draws=7, seed=9)).split(inputs)
    assert SamplingPlan.build([1], num_draws=1, seed=0).members is None
