"""The report: one file, nothing from outside, whatever is missing is said, and hostile text stays text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from html_reader import HOSTILE, Reader

from dataforge.analysis import Chain, report
from dataforge.cli import run
from dataforge.corpus import IngestConfig, ingest
from dataforge.errors import ArtifactNotFound
from dataforge.workspace import Artifact, Workspace

ANCHORS = {"clusters", "map", "mixture", "tokenizer", "training", "experts", "made", "seconds"}


def check_alone(page: str) -> Reader:
    """Nothing in the page reaches outside it; every picture has a text."""
    read = Reader(page)
    outside = [value for name, value in read.attributes if name in ("href", "src", "xlink:href", "action", "data")]
    assert all(value and value.startswith(("#", "data:image/png;base64,")) for value in outside)
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & set(read.elements)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert re.search(r"http-equiv=\"Content-Security-Policy\" content=\"default-src &#x27;none&#x27;", page)
    for picture in re.findall(r"<svg[^>]*>", page):
        assert 'aria-hidden="true"' in picture or ('role="img"' in picture and 'aria-label="' in picture)
    return read


def test_a_whole_chain_has_every_section(mini: tuple[Workspace, dict[str, Artifact]], tmp_path: Path) -> None:
    workspace, made = mini
    path = report(workspace, made["train"], tmp_path / "out" / "report.html")
    page = path.read_text("utf-8")
    read = check_alone(page)
    assert {value for name, value in read.attributes if name == "id"} >= ANCHORS
    assert "Not there" not in page
    assert path.stat().st_size < 3_000_000
    assert re.search(r"prefers-color-scheme: ?dark", page)
    for artifact in Chain.of(workspace, made["train"]).artifacts:
        assert artifact.ref in page


def test_the_same_artifacts_give_the_same_bytes(mini: tuple[Workspace, dict[str, Artifact]], tmp_path: Path) -> None:
    workspace, made = mini
    first, second = (report(workspace, made["train"], tmp_path / name) for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("step", "there"),
    [
        ("ingest", {"mixture", "made", "seconds"}),
        ("embed", {"mixture", "made", "seconds"}),
        ("cluster", {"mixture", "made", "seconds", "clusters", "map"}),
        ("train-tokenizer", {"mixture", "made", "seconds", "tokenizer"}),
        ("tokenize", {"mixture", "made", "seconds", "tokenizer"}),
        ("plan", {"mixture", "made", "seconds", "clusters", "map", "tokenizer"}),
        ("pack", ANCHORS - {"training", "experts"}),
    ],
)
def test_what_is_not_in_the_chain_is_said_plainly(
    mini: tuple[Workspace, dict[str, Artifact]], tmp_path: Path, step: str, there: set[str]
) -> None:
    workspace, made = mini
    page = report(workspace, made[step], tmp_path / "report.html").read_text("utf-8")
    check_alone(page)
    sections = dict(re.findall(r'<section id="([a-z]+)"(.*?)</section>', page, re.DOTALL))
    assert set(sections) == ANCHORS
    assert {anchor for anchor, text in sections.items() if "Not there: " not in text} == there


def test_several_references_make_one_report(mini: tuple[Workspace, dict[str, Artifact]], tmp_path: Path) -> None:
    workspace, made = mini
    refs = [made["cluster"].ref, made["tokenize"].ref]
    page = report(workspace, refs, tmp_path / "report.html").read_text("utf-8")
    assert all(f"<code>{ref}</code>" in page for ref in refs)
    assert page.count("Not there: ") == 2  # training, experts


def test_hostile_documents_stay_text(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"id": f"{i}{HOSTILE}", "text": HOSTILE * 9, "source": HOSTILE, "lang": f"{HOSTILE}{i}"} for i in range(8)]
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    documents = ingest(workspace, [raw], name="hostile", config=IngestConfig(holdout=0.5))
    from dataforge.tokenizers.stages import TrainTokenizerConfig, train_tokenizer

    tokenizer = train_tokenizer(workspace, documents, name="hostile", config=TrainTokenizerConfig(vocab_size=265))
    page = report(workspace, [documents, tokenizer], tmp_path / "report.html").read_text("utf-8")
    read = check_alone(page)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page


def test_without_a_reference_the_newest_checkpoint_is_taken(
    mini: tuple[Workspace, dict[str, Artifact]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, made = mini
    out = tmp_path / "r.html"
    assert run(["report", "--workspace", str(workspace.path), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert made["train"].ref in out.read_text("utf-8")
    assert run(["report", "plans/min", "--workspace", str(workspace.path), "--out", str(out)]) == 1
    assert "did you mean 'mini'" in capsys.readouterr().err
    with pytest.raises(ArtifactNotFound, match="nothing to report on"):
        report(Workspace(tmp_path / "empty"), None, out)


def test_an_artifact_without_run_json_and_timings_is_still_told(
    mini: tuple[Workspace, dict[str, Artifact]], tmp_path: Path
) -> None:
    workspace, made = mini
    copy = Workspace(shutil.copytree(workspace.path, tmp_path / "workspace"))
    for path in [*copy.path.glob("*/*/run.json"), *copy.path.glob("*/*/timings.jsonl")]:
        path.unlink()
    page = report(copy, made["train"].ref, tmp_path / "report.html").read_text("utf-8")
    assert "no artifact here has a run.json" in page
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", page))
