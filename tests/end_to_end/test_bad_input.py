"""What goes wrong says what, where and what to do, exits with 1, and leaves every artifact whole."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mini_chain import make_chain, write_recipe
from tiny_model import make_tiny_model

from dataforge.cli import run
from dataforge.streams import Loader
from dataforge.workspace import Workspace

CORPUS = Path(__file__).parents[1] / "corpus_tiny"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace that is made up to its rows."""
    folder = tmp_path_factory.mktemp("whole")
    model = make_tiny_model(folder / "model")
    make_chain(folder / "workspace", write_recipe(folder, CORPUS, model), until="pack")
    return folder


@pytest.fixture
def home(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own copy, as the current folder."""
    shutil.copytree(whole / "workspace", tmp_path / "workspace")
    shutil.copytree(CORPUS, tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATAFORGE_WORKSPACE", raising=False)
    return tmp_path


def truncated_gzip(home: Path) -> list[str]:
    (home / "a.jsonl.gz").write_bytes(gzip.compress((CORPUS / "first.jsonl").read_bytes())[:-1000])
    return ["ingest", "a.jsonl.gz"]


def broken_lines(home: Path) -> list[str]:
    (home / "a.jsonl").write_text('{"text": "fine"}\n{"text": "open\n')
    return ["ingest", "a.jsonl"]


def invalid_utf8(home: Path) -> list[str]:
    (home / "a.jsonl").write_bytes(b'{"text": "\xff\xfe"}\n')
    return ["ingest", "a.jsonl"]


def empty_file(home: Path) -> list[str]:
    (home / "a.jsonl").touch()
    return ["ingest", "a.jsonl"]


def zero_documents(home: Path) -> list[str]:
    (home / "a.jsonl").write_text('{"text": ""}\n' * 3)
    return ["ingest", "a.jsonl"]


def doubled_id(home: Path) -> list[str]:
    (home / "a.jsonl").write_text('{"id": "x", "text": "1"}\n{"id": "x", "text": "2"}\n')
    return ["ingest", "a.jsonl"]


def more_clusters_than_documents(home: Path) -> list[str]:
    return ["cluster", "embeddings/tiny", "--num-clusters", "5000"]


def budget_that_cannot_be_met(home: Path) -> list[str]:
    return ["plan", "clusters/tiny", "--num-draws", "4000000"]


def row_longer_than_everything(home: Path) -> list[str]:
    return ["pack", "plans/tiny", "shards/tiny", "--row-length", "1000000"]


def unknown_artifact(home: Path) -> list[str]:
    return ["plan", "clusters/tinny", "--num-draws", "10"]


def unknown_sampler(home: Path) -> list[str]:
    return ["plan", "clusters/tiny", "--num-draws", "10", "--sampler", "clusterclop"]


def unknown_router(home: Path) -> list[str]:
    return ["train", "rows/tiny", "--set", 'model={router = "swich"}']


def training_past_the_end(home: Path) -> list[str]:
    return ["train", "rows/tiny", "--steps", "1000000"]


BAD: dict[Callable[[Path], list[str]], str] = {
    truncated_gzip: "gzip stream is broken",
    broken_lines: "1 of 2 rows are unreadable",
    invalid_utf8: "a.jsonl:1 (invalid-utf-8)",
    empty_file: "no document was found",
    zero_documents: "no document was found",
    doubled_id: "a.jsonl:1 and a.jsonl:2",
    more_clusters_than_documents: "5,000",
    budget_that_cannot_be_met: "4,000,000 draws",
    row_longer_than_everything: "1,000,001",
    unknown_artifact: "'tiny'",
    unknown_sampler: "'clusterclip'",
    unknown_router: "'switch'",
    training_past_the_end: "1,000,000 steps",
}


@pytest.mark.parametrize("mistake", BAD, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_told_in_three_parts_and_harms_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], mistake: Callable[[Path], list[str]]
) -> None:
    arguments = mistake(home)
    before = {artifact.ref: artifact.content for artifact in Workspace("workspace").artifacts()}
    assert run(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("error: "))
    assert [line[:7] for line in lines[first:]] == ["error: ", "   in: ", " hint: "]
    assert BAD[mistake] in captured.err
    workspace = Workspace("workspace")
    after = {artifact.ref: artifact.content for artifact in workspace.artifacts()}
    assert before.items() <= after.items()  # steps that were fine on the way may have made theirs
    assert [problem for artifact in workspace.artifacts() for problem in workspace.verify(artifact)] == []
    assert not list(workspace.path.rglob("*.tmp"))


def test_a_corrupted_shard_byte_is_found_when_it_is_read(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataforge.errors import ChecksumMismatch

    workspace = Workspace("workspace")
    shards = workspace.open("shards/tiny")
    path = shards.file(shards.parts(".tok")[0]["path"])
    data = bytearray(path.read_bytes())
    data[4096 + 17] ^= 1
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(ChecksumMismatch) as caught:
        for _ in Loader(workspace.open("rows/tiny").path, global_batch=8):
            pass
    assert path.name in str(caught.value)
    assert caught.value.where
    assert caught.value.hint
    assert run(["verify", "shards/tiny"]) == 1
    assert path.name in capsys.readouterr().out
    assert run(["tokenize", "documents/tiny", "tokenizers/tiny", "--name", "tiny", "--remake", path.name]) == 0
    assert run(["verify"]) == 0
