"""A few kills in each step of the chain; `make soak` has the long counts."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from kill_points import run_and_kill
from mini_chain import make_chain, write_recipe

from dataforge.workspace import Workspace

CORPUS = Path(__file__).parents[1] / "corpus_tiny"
BEFORE = {"embed": "dedup", "tokenize": "train-tokenizer", "pack": "plan"}
FILES = {"embed": 6, "tokenize": 5, "pack": 3}
"""New files that a step publishes at least: the kill comes at one of them."""


def make_step(workspace: str, recipe: str, step: str) -> None:
    """What the killed process does."""
    make_chain(Path(workspace), Path(recipe), until=step)


@pytest.mark.parametrize("step", BEFORE)
def test_a_step_killed_at_random_ends_in_the_same_content(tmp_path: Path, tiny_model: Path, step: str) -> None:
    recipe = write_recipe(tmp_path, CORPUS, tiny_model)
    whole = make_chain(tmp_path / "whole", recipe, until=step)
    make_chain(tmp_path / "base", recipe, until=BEFORE[step])
    chance = random.Random(step)
    for kill in range(3):
        workspace = tmp_path / f"killed-{kill}"
        shutil.copytree(tmp_path / "base", workspace, copy_function=os.link)
        at, after = chance.randint(1, FILES[step]), chance.random() < 0.5
        assert run_and_kill(make_step, (str(workspace), str(recipe), step), at=at, after=after)
        made = make_chain(workspace, recipe, until=step)
        assert made[step].content == whole[step].content
        opened = Workspace(workspace)
        assert [problem for artifact in opened.artifacts() for problem in opened.verify(artifact)] == []
        assert opened.unfinished() == []
        assert not list(workspace.rglob("*.tmp"))
