"""The bundled documents through every step, trained from a stream over HTTP: what is there, and whether it is true."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from html_reader import Reader
from whole_chain import make_whole_chain, whole_recipe

from dataforge.cli import run
from dataforge.cli.run_command import service
from dataforge.corpus import Documents
from dataforge.errors import PastTheEnd
from dataforge.plans import SamplingPlan
from dataforge.recipe import run_recipe
from dataforge.rows import Rows
from dataforge.streams.provenance import trace_row
from dataforge.tokenizers import Tokenizer
from dataforge.workspace import Artifact, Workspace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def made(folder: Path) -> dict[str, Artifact]:
    """Step -> artifact of the whole chain. Tests only read it."""
    return make_whole_chain(folder, service)[1]


@pytest.fixture
def workspace(folder: Path, made: dict[str, Artifact]) -> Workspace:
    return Workspace(folder / "workspace", create=False)


def files_of(workspace: Workspace) -> dict[str, int]:
    """Every file of every artifact, and when it was last written."""
    return {str(path): path.stat().st_mtime_ns for path in workspace.path.glob("*/*@*/**/*") if path.is_file()}


def test_a_second_run_makes_nothing(folder: Path, workspace: Workspace, made: dict[str, Artifact]) -> None:
    before = files_of(workspace)
    again = run_recipe(workspace, whole_recipe(folder))
    assert {step: artifact.id for step, artifact in again.items()} == {step: a.id for step, a in made.items()}
    assert files_of(workspace) == before
    assert workspace.unfinished() == []


def test_a_model_trained_from_mapped_files_is_the_one_trained_from_the_stream(
    folder: Path, workspace: Workspace, made: dict[str, Artifact], tmp_path: Path
) -> None:
    copy = Workspace(shutil.copytree(workspace.path, tmp_path / "workspace"))
    shutil.rmtree(copy.path / "checkpoints")
    again = run_recipe(copy, whole_recipe(folder))
    assert again["train"].id == made["train"].id
    assert again["train"].content == made["train"].content


def test_every_byte_is_sound_and_every_count_balances(workspace: Workspace) -> None:
    assert run(["verify", "--workspace", str(workspace.path)]) == 0
    artifacts = workspace.artifacts()
    assert {a.kind for a in artifacts} >= {
        "documents",
        "clusters",
        "plans",
        "tokenizers",
        "shards",
        "rows",
        "checkpoints",
    }
    dropped = 0
    for artifact in artifacts:
        counts = artifact.counts
        for unit in counts.get("in", {}).keys() & counts.get("out", {}).keys():
            lost = sum(units.get(unit, 0) for units in counts.get("dropped", {}).values())
            assert counts["in"][unit] == counts["out"][unit] + lost, (artifact.ref, unit)
        rules = [rule for path in artifact.ledgers() for rule in pq.read_table(path)["rule"].to_pylist()]
        for reason, units in counts.get("dropped", {}).items():
            if "documents" in units:
                assert rules.count(reason) == units["documents"], (artifact.ref, reason)
                dropped += units["documents"]
    assert dropped > 3  # three copies, and the held-out documents that have no cluster


def truth(made: dict[str, Artifact]) -> list[dict[str, Any]]:
    """For every token of the plan's draws, in order: its id and where it comes from, looked up the plainest way."""
    plan, documents = SamplingPlan.open(made["plan"]), Documents(made["dedup"])
    tokenizer = Tokenizer.load(made["train-tokenizer"].path)
    labels = {}
    for part in made["cluster"].parts(".parquet"):
        for row in pq.read_table(made["cluster"].file(part["path"])).to_pylist():
            labels[row["number"]] = row["label"]
    members = {c: [n for n in sorted(labels) if labels[n] == c] for c in range(plan.num_clusters)}
    sequence = []
    for draw in range(plan.num_draws):
        cluster, inside, epoch = (int(told[0]) for told in plan.at(np.array([draw])))
        number = members[cluster][inside]
        (row,) = documents.get([number])
        assert not row["held_out"]
        ids = [*tokenizer.encode(row["text"]).tolist(), tokenizer.eos_id]
        at = {"document": number, "cluster": labels[number], "draw": draw, "epoch": epoch}
        at |= {name: row[name] for name in ("id", "source", "file", "position")}
        sequence += [{**at, "token": token, "offset": offset} for offset, token in enumerate(ids)]
    return sequence


def test_every_token_of_a_row_is_traced_to_where_it_comes_from(folder: Path, made: dict[str, Artifact]) -> None:
    sequence, rows = truth(made), Rows(made["pack"])
    length = rows.row_length
    assert rows.num_rows == (len(sequence) - 1) // length
    for row in sorted({*range(0, rows.num_rows, 23), rows.num_rows - 1}):
        expected = sequence[row * length : row * length + length + 1]
        token_ids, _ = rows.read(row)
        assert token_ids.tolist() == [at["token"] for at in expected]
        told = trace_row(made["pack"], row, rows)
        assert (told["row"], told["num_tokens"], told["plan"]) == (row, length + 1, made["plan"].ref)
        assert sum(segment["length"] for segment in told["segments"]) == length + 1
        for segment in told["segments"]:
            first = expected[segment["row_offset"]]
            last = expected[segment["row_offset"] + segment["length"] - 1]
            assert (last["draw"], last["offset"]) == (first["draw"], segment["offset"] + segment["length"] - 1)
            for name in ("document", "offset", "id", "source", "file", "position", "cluster", "draw", "epoch"):
                assert segment[name] == first[name], name
            raw = (folder / segment["file"]).read_bytes().split(b"\n")[segment["position"] - 1]
            assert json.loads(raw)["id"] == segment["id"]
            assert segment["reason"]["sampler"] == "clusterclip"
    with pytest.raises(PastTheEnd, match=f"there is no row {rows.num_rows:,}"):
        trace_row(made["pack"], rows.num_rows)


def test_lineage_names_the_documents_of_a_row_and_the_files_of_a_model(
    workspace: Workspace, made: dict[str, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--workspace", str(workspace.path)]
    assert run(["lineage", "rows/mini", "--row", "7", *where, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(trace_row(made["pack"], 7)))
    assert run(["lineage", "rows/mini", "--row", "7", *where]) == 0
    text = capsys.readouterr().out
    for segment in told["segments"]:
        assert f"document {segment['document']:,} from {segment['file']}:{segment['position']}" in text
        assert f"cluster {segment['cluster']}, draw {segment['draw']:,} of {made['plan'].ref}" in text
    assert run(["lineage", "checkpoints/mini", *where]) == 0
    text = capsys.readouterr().out
    assert all(artifact.ref in text for artifact in made.values())
    assert "corpus_tiny/second.jsonl (62,645 bytes" in text


def test_the_report_opens_alone_and_has_every_section(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    assert run(["report", "--workspace", str(workspace.path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    page = out.read_text("utf-8")
    read = Reader(page)
    links = [value or "" for name, value in read.attributes if name in ("href", "src")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "Not there" not in page
    ids = {value for name, value in read.attributes if name == "id"}
    assert ids >= {"clusters", "map", "mixture", "tokenizer", "training", "experts", "made", "seconds"}
