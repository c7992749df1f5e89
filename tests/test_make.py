"""Stages: killed anywhere and resumed, run by a pool, raced by two writers; growth by parts; conservation."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kill_points import run_and_kill

from dataforge.corpus import Documents, IngestConfig, append, ingest
from dataforge.dedup import dedup
from dataforge.errors import ConfigError, InputError, MixedEnvironment, NotConserved, NotReproducible
from dataforge.make import make
from dataforge.runners import ProcessPool
from dataforge.stage import Forecast, Inputs, Out, Part, PartOut, Run, part_key
from dataforge.workspace import Artifact, Counts, Workspace


@dataclass(frozen=True, kw_only=True)
class LengthsConfig:
    unit: str = "characters"
    lose: int = 0
    salt: str = ""


@dataclass(frozen=True)
class Lengths:
    """A small stage of the test's own: one JSON of text lengths a part, a total in `finish`."""

    config: LengthsConfig
    world: str = "cpu"
    noise: str = ""
    kind = "lengths"
    version = 1

    def environment(self) -> dict[str, Any]:
        return {"device": self.world}

    def split(self, inputs: Inputs) -> list[Part]:
        parts = Documents(inputs["documents"]).parts
        return [Part(f"{part.stem}.jsonl", part_key(self, part.content), {"part": part}) for part in parts]

    def open_worker(self, inputs: Inputs) -> None:
        return None

    def run_part(self, worker: None, part: Part, out: PartOut) -> Counts:
        lengths = []
        for _, batch in part.payload["part"].batches(["text"]):
            lengths += [len(text) for text in batch.column("text").to_pylist()]
        out.path.write_text(json.dumps(lengths) + self.noise)
        return Counts(taken={"documents": len(lengths)}, made={"documents": len(lengths) - self.config.lose})

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        for name in ("total.json", "again.json"):
            if out.has(name):
                out.keep(name)
                continue
            with out.write(name) as path:
                path.write_text(json.dumps(sum(sum(json.loads((out.folder / p["path"]).read_text())) for p in parts)))
        return Counts(extra={"files": len(parts)})


def chain(workspace: str, corpus: str) -> None:
    """What the killed process does: three steps, so that publish points of every kind are passed."""
    opened = Workspace(workspace)
    documents = dedup(opened, ingest(opened, [corpus], name="web", config=IngestConfig(holdout=0.05)), name="web-dedup")
    make(opened, Lengths(LengthsConfig()), {"documents": documents}, name="web")


def contents(workspace: Workspace) -> dict[str, str]:
    return {f"{artifact.kind}/{artifact.id}": artifact.content for artifact in workspace.artifacts()}


def test_a_run_killed_at_every_publish_point_ends_in_the_same_content(tmp_path: Path, corpus: Path) -> None:
    chain(str(tmp_path / "undisturbed"), str(corpus))
    expected = contents(Workspace(tmp_path / "undisturbed"))
    assert len(expected) == 5
    path = str(tmp_path / "killed")
    kills = 0
    # Each process makes one new file and dies, in turn right after it appeared and right before the next would have.
    while run_and_kill(chain, (path, str(corpus)), at=1 + kills % 2, after=kills % 2 == 0):
        kills += 1
        assert kills < 40
    assert kills > 15
    opened = Workspace(path)
    assert contents(opened) == expected
    assert [problem for artifact in opened.artifacts() for problem in opened.verify(artifact)] == []
    assert opened.unfinished() == []
    assert not list(opened.path.rglob("*.tmp"))


def test_a_pool_of_processes_makes_the_same_content(tmp_path: Path, corpus: Path) -> None:
    told = []
    for name, run in (("alone", Run()), ("pool", Run(runner=ProcessPool(2)))):
        opened = Workspace(tmp_path / name)
        documents = ingest(opened, [corpus], name="web", run=run)
        make(opened, Lengths(LengthsConfig()), {"documents": documents}, name="web")
        told.append(contents(opened))
    assert told[0] == told[1]


def test_two_runs_at_once_harm_nothing(tmp_path: Path, corpus: Path) -> None:
    path = str(tmp_path / "shared")
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=chain, args=(path, str(corpus))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    opened = Workspace(path)
    assert len(opened.artifacts()) == 5
    assert [problem for artifact in opened.artifacts() for problem in opened.verify(artifact)] == []


def test_appending_makes_only_the_new_part_and_keeps_old_numbers(workspace: Workspace, corpus: Path) -> None:
    before = ingest(workspace, [corpus / "first.jsonl"], name="web")
    make(workspace, Lengths(LengthsConfig()), {"documents": before}, name="web")
    after = append(workspace, before, [corpus / "second.jsonl"])
    make(workspace, Lengths(LengthsConfig()), {"documents": after}, name="web")
    for kind in ("documents", "lengths"):
        told = json.loads((workspace.open(f"{kind}/web").path / "run.json").read_text())
        assert (told["made"], told["reused"]) == (1, 1)
    old, new = Documents(before), Documents(after)
    assert new.num_documents == 198
    assert new.get([0, 57], ["id"]) == old.get([0, 57], ["id"])
    assert append(workspace, after, [corpus / "first.jsonl", corpus / "second.jsonl"]).id == after.id
    assert workspace.verify(after) == []


def test_an_appended_part_is_found_though_the_catalog_is_gone(workspace: Workspace, corpus: Path) -> None:
    before = ingest(workspace, [corpus / "first.jsonl"], name="web")
    workspace.catalog.path.unlink()
    (corpus / "first.jsonl").unlink()
    assert append(workspace, before, [corpus / "second.jsonl"]).counts["out"]["documents"] == 198


def test_what_is_not_conserved_is_refused(workspace: Workspace, documents: Artifact) -> None:
    with pytest.raises(NotConserved, match="195 documents came in, 193 went out"):
        make(workspace, Lengths(LengthsConfig(lose=1)), {"documents": documents}, name="web")
    (begun,) = workspace.unfinished()
    assert begun["refused"]["error"].startswith("195 documents came in")
    assert not workspace.artifacts("lengths")


def test_other_content_under_one_id_is_refused(workspace: Workspace, documents: Artifact) -> None:
    make(workspace, Lengths(LengthsConfig()), {"documents": documents}, name="web")
    whole = workspace.open("lengths/web")
    (whole.path / "manifest.json").unlink()
    (whole.path / "part-00000.json").unlink()
    workspace.catalog.path.unlink()
    with pytest.raises(NotReproducible):
        make(workspace, Lengths(LengthsConfig(), noise=" "), {"documents": documents}, name="web")


def test_parts_of_two_device_classes_are_not_mixed_unasked(workspace: Workspace, documents: Artifact) -> None:
    made = make(workspace, Lengths(LengthsConfig()), {"documents": documents}, name="web")
    (made.path / "manifest.json").unlink()
    with pytest.raises(MixedEnvironment, match="cuda"):
        make(workspace, Lengths(LengthsConfig(), world="cuda"), {"documents": documents}, name="web")
    mixed = Run(allow_mixed=True)
    assert make(workspace, Lengths(LengthsConfig(), world="cuda"), {"documents": documents}, name="web", run=mixed)
    assert json.loads((made.path / "run.json").read_text())["allow_mixed"] is True


def test_a_damaged_part_is_made_again_with_the_same_content(workspace: Workspace, documents: Artifact) -> None:
    made = make(workspace, Lengths(LengthsConfig()), {"documents": documents}, name="web")
    damaged = made.file("part-00001.jsonl")
    damaged.write_bytes(b"[]")
    assert workspace.verify(made)
    again = Run(remake=("part-00001.jsonl",))
    mended = make(workspace, Lengths(LengthsConfig()), {"documents": documents}, name="web", run=again)
    assert mended.content == made.content
    assert workspace.verify(mended) == []


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(workspace: Workspace, corpus: Path) -> None:
    before = sorted(workspace.path.rglob("*"))
    planned: Any = ingest(workspace, [corpus], name="web", run=Run(dry_run=True))
    assert isinstance(planned, Forecast)
    assert (planned.parts, planned.parts_found, planned.id is not None) == (2, 0, True)
    later: Any = dedup(workspace, planned, name="web", run=Run(dry_run=True))
    assert isinstance(later, Forecast)
    assert later.id is None
    left = [path for path in workspace.path.rglob("*") if "catalog" not in path.name]
    assert sorted(left) == [path for path in before if "catalog" not in path.name]
    assert ingest(workspace, [corpus], name="web").id == planned.id


def test_the_status_of_a_killed_run_counts_its_whole_parts(tmp_path: Path, corpus: Path) -> None:
    path = str(tmp_path / "killed")
    assert run_and_kill(chain, (path, str(corpus)), at=4, after=True)
    (begun,) = Workspace(path).unfinished()
    assert (begun["kind"], begun["done"], len(begun["parts"])) == ("documents", 1, 2)


def test_ids_are_the_digest_of_the_request_alone(workspace: Workspace, corpus: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "moved" / "corpus_tiny"
    elsewhere.parent.mkdir()
    corpus.rename(elsewhere)
    other = ingest(Workspace(tmp_path / "other"), [elsewhere], name="b", config=IngestConfig(holdout=0.05))
    assert other.id == "71d4d7e6aa3e"  # frozen: a change here means that no workspace of before is found again


def test_a_refusal_leaves_nothing_where_nothing_was_made(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip at all")
    with pytest.raises(InputError):
        ingest(workspace, [tmp_path / "a.jsonl.gz"], name="web")
    assert workspace.unfinished() == []
    assert list((workspace.path / "documents").iterdir()) == []


def test_parts_made_before_a_refusal_are_found_by_the_next_request(workspace: Workspace, corpus: Path) -> None:
    broken = corpus / "third.jsonl.gz"
    broken.write_bytes(b"no gzip at all")
    with pytest.raises(InputError):
        ingest(workspace, [corpus], name="web")
    (begun,) = workspace.unfinished()
    assert (begun["done"], "gzip stream is broken" in begun["refused"]["error"]) == (2, True)
    broken.unlink()
    whole = ingest(workspace, [corpus], name="web")
    assert json.loads((whole.path / "run.json").read_text())["reused"] == 2


def test_a_dry_run_names_what_is_there(workspace: Workspace, corpus: Path) -> None:
    made = ingest(workspace, [corpus], name="web")
    assert ingest(workspace, [corpus], name="other", run=Run(dry_run=True)).id == made.id
    assert workspace.names("documents") == {"web": made.id}


@dataclass(frozen=True)
class Unopened(Lengths):
    """A stage whose worker cannot be opened."""

    def open_worker(self, inputs: Inputs) -> None:
        raise ConfigError("the model is not there", where="models/none", hint="give another")


def test_an_error_in_opening_a_worker_comes_back_from_a_pool_as_itself(
    workspace: Workspace, documents: Artifact
) -> None:
    stage, pool = Unopened(LengthsConfig(salt="unopened")), Run(runner=ProcessPool(2))
    with pytest.raises(ConfigError, match="the model is not there") as caught:
        make(workspace, stage, {"documents": documents}, name="web", run=pool)
    assert (caught.value.where, caught.value.hint) == ("models/none", "give another")
