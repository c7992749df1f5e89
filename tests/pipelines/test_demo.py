"""The demo: what it says the first time and the second, seeds, and the bar a model has to clear."""

from __future__ import annotations

from pathlib import Path

import pytest
from whole_chain import whole_recipe

from dataforge.analysis.training import HeldOutBits
from dataforge.pipelines import demo as module
from dataforge.pipelines.demo import RECIPE, demo, low_enough, with_seed
from dataforge.recipe import load_recipe
from dataforge.stage import Run


def test_a_second_demo_makes_nothing_twice_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = whole_recipe(tmp_path)
    chain = demo(tmp_path / "demo", recipe, Run())
    first = capsys.readouterr().out
    assert f"{len(chain.artifacts)} artifacts made" in first
    assert all(artifact.ref in first for artifact in chain.artifacts)
    for figure in ("documents", "clusters", "bytes a token", "scaffolds", "rows", "final loss", "held-out bits a byte"):
        assert f"\n    {figure} " in first
    assert first.splitlines()[-1] == str(tmp_path / "demo" / "report.html")
    page = (tmp_path / "demo" / "report.html").read_bytes()
    demo(tmp_path / "demo", recipe, Run())
    second = capsys.readouterr().out
    assert f"nothing new was made; {len(chain.artifacts)} artifacts found" in second
    assert (tmp_path / "demo" / "report.html").read_bytes() == page


def test_another_seed_is_another_plan_and_another_model_from_the_same_shards() -> None:
    recipe = load_recipe(RECIPE)
    other = with_seed(recipe, 2)
    changed = {step for step in recipe.configs if recipe.configs[step] != other.configs[step]}
    assert changed == {"plan", "train"}
    assert (other.configs["plan"].seed, other.configs["train"].seed, other.name) == (2, 2, "tiny-seed2")


@pytest.mark.parametrize(
    ("bits", "enough"),
    [
        (HeldOutBits(2.9, 3.5, 3.0), True),
        (HeldOutBits(2.98, 3.5, 3.0), False),
        (HeldOutBits(2.0, None, None), False),
        (None, False),
    ],
)
def test_the_bar_is_fifteen_per_cent_below_the_unigram_model(bits: HeldOutBits | None, enough: bool) -> None:
    assert low_enough(bits) is enough


def test_a_model_above_the_bar_ends_in_exit_code_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole_recipe(tmp_path)
    monkeypatch.setattr(module, "RECIPE", tmp_path / "mini.toml")
    monkeypatch.setattr(module, "ProcessPool", lambda workers: None)
    assert module.main(["--folder", str(tmp_path / "demo")]) == 1  # twenty steps of a very small model
    assert "held-out bits a byte below the unigram model's: is" in capsys.readouterr().err
