"""A whole recipe on Ray: the same artifacts as without, references on stdout, everything else on stderr."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_tiny_model

from dataforge.errors import ConfigError
from dataforge.pipelines import flow
from dataforge.recipe import load_recipe, run_recipe
from dataforge.workspace import Workspace

RECIPE = """
name = "web"
[ingest]
paths = ["corpus_tiny"]
holdout = 0.05
[dedup]
[embed]
model = "{model}"
dimensions = 12
[cluster]
num_clusters = 6
[train-tokenizer]
vocab_size = 400
[tokenize]
[plan]
num_draws = 300
[pack]
row_length = 64
"""


@pytest.fixture
def recipe(tmp_path: Path, corpus: Path) -> Path:
    """Every step but training, over the bundled documents and a model of some kilobytes."""
    path = tmp_path / "web.toml"
    path.write_text(RECIPE.format(model=make_tiny_model(tmp_path / "model")))
    return path


def contents(workspace: Workspace) -> dict[str, str]:
    return {f"{artifact.kind}/{artifact.id}": artifact.content for artifact in workspace.artifacts()}


def test_every_step_of_a_recipe_gives_the_ids_and_content_of_a_run_without_ray(recipe: Path, tmp_path: Path) -> None:
    """As a user would: one command, which starts a Ray of its own and stops it."""
    command = [sys.executable, "-m", "dataforge.pipelines.flow", str(recipe), "--workspace", str(tmp_path / "ray")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    here, on_ray = Workspace(tmp_path / "here"), Workspace(tmp_path / "ray")
    expected = run_recipe(here, load_recipe(recipe))
    assert done.stdout.splitlines() == [artifact.ref for artifact in expected.values()]
    assert contents(on_ray) == contents(here)
    assert len(contents(here)) == 14
    assert [problem for artifact in on_ray.artifacts() for problem in on_ray.verify(artifact)] == []


def test_a_part_of_a_recipe_is_told_as_json(
    cluster: Any, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flow.main([str(recipe), "-w", str(tmp_path / "ray"), "--json", "--until", "dedup"]) == 0
    refs = json.loads(capsys.readouterr().out)
    made = Workspace(tmp_path / "ray").artifacts("documents")
    assert sorted(refs.values()) == sorted(artifact.ref for artifact in made)
    assert list(refs) == ["ingest", "dedup"]


def test_errors_are_printed_and_give_exit_code_1(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        ([str(tmp_path / "no.toml")], "there is no such recipe"),
        ([str(recipe), "--until", "surgery"], "surgery"),
        ([str(recipe), "--max-in-flight", "0"], "max_in_flight must be at least 1"),
    ):
        assert flow.main([*arguments, "-w", str(tmp_path / "ray")]) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert said in told.err
    assert flow.main([str(recipe), "--such-an-option"]) == 2


def test_a_dry_run_makes_nothing(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flow.main([str(recipe), "-w", str(tmp_path / "ray"), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("documents/web@")
    assert Workspace(tmp_path / "ray").artifacts() == []


def test_the_workspace_of_a_job_does_not_lie_in_the_copy_that_ray_deletes() -> None:
    job = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    assert flow.workspace_folder(None, {}) == Path("workspace")
    assert flow.workspace_folder("w", {}) == Path("w")
    assert flow.workspace_folder("/shared/w", job) == Path("/shared/w")
    assert flow.workspace_folder(None, job) == Path.home() / "dataforge-workspace"
    with pytest.raises(ConfigError, match="is relative"):
        flow.workspace_folder("w", job)


def test_the_options_that_the_page_on_ray_names_are_there() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ray.md").read_text()
    known = {option for parameter in flow.command.params for option in parameter.opts}
    others = {"--address", "--working-dir", "--no-deps", "--on", "--help"}
    others |= {"--entrypoint-num-cpus", "--entrypoint-memory", "--entrypoint-num-gpus"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) <= known | others
