"""Recipes: checked whole before anything is made; only what is missing is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataforge.errors import ConfigError, DataforgeError, InputError, UnknownName
from dataforge.recipe import load_recipe, run_recipe
from dataforge.stage import Forecast, Run
from dataforge.workspace import Workspace


def write(folder: Path, text: str) -> Path:
    path = folder / "web.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("[ingest\n", InputError, "no TOML"),
        ("", ConfigError, "names no files"),
        ("[ingest]\npaths = ['a']\n[dedupe]\n", UnknownName, "did you mean 'dedup'"),
        ("[ingest]\npaths = ['a']\nhold_out = 0.1\n", UnknownName, "did you mean 'holdout'"),
        ("[ingest]\npaths = ['a']\nholdout = 'some'\n", ConfigError, "holdout must be a number, got 'some'"),
        ("[ingest]\npaths = ['a']\nholdout = 0.9\n", ConfigError, "between 0 and 0.5"),
        ("[ingest]\npaths = ['a']\n[tokenize]\n", ConfigError, "add a [train-tokenizer] table"),
        ("name = 'Not A Name'\n[ingest]\npaths = ['a']\n", ConfigError, "cannot name an artifact"),
        ("[ingest]\npaths = ['a']\n[dedup]\nnormalize = ['nfd']\n", ConfigError, "use any of nfc"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_made(
    tmp_path: Path, text: str, error: type[DataforgeError], told: str
) -> None:
    with pytest.raises(error) as caught:
        load_recipe(write(tmp_path, text))
    assert told in str(caught.value)
    assert "web.toml" in str(caught.value.where)


def test_a_recipe_makes_its_steps_once(workspace: Workspace, corpus: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "[ingest]\npaths = ['corpus_tiny']\nholdout = 0.05\n[dedup]\n"))
    first = run_recipe(workspace, recipe)
    assert [artifact.ref.split("@")[0] for artifact in first.values()] == ["documents/web", "documents/web"]
    before = {path: path.stat().st_mtime_ns for path in workspace.path.rglob("*.parquet")}
    again = run_recipe(workspace, recipe)
    assert {name: artifact.id for name, artifact in first.items()} == {name: a.id for name, a in again.items()}
    assert {path: path.stat().st_mtime_ns for path in workspace.path.rglob("*.parquet")} == before


def test_a_dry_run_of_a_recipe_tells_every_step(workspace: Workspace, corpus: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "[ingest]\npaths = ['corpus_tiny']\n[dedup]\n"))
    told = run_recipe(workspace, recipe, run=Run(dry_run=True))
    assert all(isinstance(planned, Forecast) for planned in told.values())
    assert workspace.artifacts() == []


def test_append_in_a_recipe_adds_parts_after_the_others(workspace: Workspace, corpus: Path, tmp_path: Path) -> None:
    text = "[ingest]\npaths = ['corpus_tiny/first.jsonl']\nappend = ['corpus_tiny/second.jsonl']\n"
    made = run_recipe(workspace, load_recipe(write(tmp_path, text)))
    assert made["ingest"].counts["out"]["documents"] == 198
    with pytest.raises(UnknownName):
        run_recipe(workspace, load_recipe(write(tmp_path, text)), until="dedup")


def test_the_bundled_recipe_is_a_good_one() -> None:
    recipe = load_recipe(Path(__file__).parents[1] / "pipelines" / "recipes" / "tiny.toml")
    assert next(iter(recipe.configs)) == "ingest"
    assert list(recipe.configs)[-1] == "train"
    assert recipe.places["train"] == {"stream": "http"}
