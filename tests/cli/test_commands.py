"""The command line: answers on stdout, talk on stderr, exit codes, three-part errors, unknown names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataforge.cli import COMMANDS, commands, run
from dataforge.steps import STEPS


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, so that `./workspace` is the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATAFORGE_WORKSPACE", raising=False)
    return tmp_path


def test_a_step_prints_its_reference_as_the_last_line(
    home: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ingest", str(corpus), "--name", "web", "--holdout", "0.05"]) == 0
    ref = capsys.readouterr().out.splitlines()[-1]
    assert ref == "documents/web@71d4d7e6aa3e"
    assert run(["dedup", ref, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["dropped"] == {"exact-duplicate": {"documents": 3, "bytes": 1258}}
    assert run(["dedup", "documents/web", "--dry-run", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["documents"] > 0


def test_the_other_commands_tell_what_is_there(home: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["ingest", str(corpus), "--name", "web"])
    run(["dedup", "documents/web", "--name", "web"])
    capsys.readouterr()
    for arguments, expected in (
        (["status"], "195 documents"),
        (["list", "documents"], "* documents/web@"),
        (["show", "documents/web"], "3 documents, 1,258 bytes (exact-duplicate)"),
        (["lineage", "documents/web"], "corpus_tiny/first.jsonl (60,150 bytes"),
        (["verify"], "sound"),
    ):
        assert run(arguments) == 0
        assert expected in capsys.readouterr().out
        assert run([*arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)


def test_verify_fails_on_damage_and_says_how_to_mend_it(
    home: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["ingest", str(corpus), "--name", "web"])
    (part,) = (home / "workspace").glob("documents/*/part-00000.parquet")
    good = part.read_bytes()
    part.unlink()
    part.write_bytes(good[:-3] + b"xyz")
    assert run(["verify", "documents/web"]) == 1
    assert "--remake part-00000.parquet" in capsys.readouterr().out
    assert run(["ingest", str(corpus), "--name", "web", "--remake", "part-00000.parquet"]) == 0
    assert run(["verify", "documents/web"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["ingets", "x"], 2, "did you mean 'ingest'"),
        (["dedup"], 2, "Missing argument"),
        (["dedup", "documents/none"], 1, "there is no workspace here"),
        (["ingest", "missing.jsonl"], 1, "no such file or folder"),
        (["ingest", "missing.jsonl", "--set", "max_bad_shar=1"], 1, "did you mean 'max_bad_share'"),
        (["ingest", "missing.jsonl", "--max-bad-share", "7"], 1, "must be between 0 and 1"),
        (["run", "missing.toml"], 1, "no such recipe"),
    ],
)
def test_a_mistake_has_an_exit_code_and_says_what_to_do(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, told: str
) -> None:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.out == ""


def test_an_error_has_three_parts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "a.jsonl").write_text('{"id": "x", "text": "1"}\n{"id": "x", "text": "2"}\n')
    assert run(["ingest", "a.jsonl"]) == 1
    lines = capsys.readouterr().err.splitlines()[-3:]
    assert [line[:7] for line in lines] == ["error: ", "   in: ", " hint: "]


def test_every_command_of_the_list_is_there_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert run([name, "--help"]) == 0, name
        assert capsys.readouterr().out.startswith("Usage: dataforge")
    assert list(COMMANDS)[: len(STEPS)] == list(STEPS)
    assert commands.get_command(None, "nothing") is None  # type: ignore[arg-type]


def test_an_interrupted_command_ends_with_130(home: Path, corpus: Path) -> None:
    code = (
        "import sys\nfrom dataforge.corpus.ingest import Ingest\n"
        "def stop(*_): raise KeyboardInterrupt\nIngest.run_part = stop\n"
        f"from dataforge.cli import main\nmain(['ingest', {str(corpus)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=home, check=False)
    assert done.returncode == 130
    assert "goes on" in done.stderr
