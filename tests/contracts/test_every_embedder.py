"""What holds for every registered embedder: shape, type, no undefined values, the same answer again."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import make_tiny_model

from dataforge.embeddings import EmbedConfig, embedders
from dataforge.embeddings.embed import unit_rows
from dataforge.stage import Run
from dataforge.workspace import Workspace
from dataforge.workspace.manifest import plain

TEXTS = [
    "The red apple",
    "rust of iron, 42 dogs!",
    "",
    "人 é ☃ \ufeff\u2028",
    "moon " * 500,
    "x" * 5000,
    "the",
    "\x00\n",
]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny-model"))


def opened(name: str, workspace: Workspace, model: Path) -> tuple[Any, Any]:
    embedder = embedders.get(name)(EmbedConfig(embedder=name, model=str(model), max_tokens=32))
    return embedder, embedder.open(embedder.inputs(workspace, Run()))


@pytest.mark.parametrize("name", embedders.names())
def test_every_embedder_gives_a_finite_row_a_text_and_the_same_again(
    name: str, workspace: Workspace, tiny_model: Path
) -> None:
    _, encoder = opened(name, workspace, tiny_model)
    rows = encoder.encode(TEXTS)
    assert rows.dtype == np.float32
    assert rows.shape == (len(TEXTS), encoder.dimensions)
    assert np.isfinite(rows).all()
    assert np.array_equal(rows, encoder.encode(TEXTS))
    assert np.array_equal(rows, opened(name, workspace, tiny_model)[1].encode(TEXTS))
    assert encoder.encode([]).shape == (0, encoder.dimensions)
    unit, blank = unit_rows(rows, where=name)
    assert unit.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(unit.astype(np.float64), axis=1), 1, atol=2e-3)
    assert blank >= 1, "the empty text says nothing"


@pytest.mark.parametrize("name", embedders.names())
def test_every_embedder_reads_no_further_than_it_says(name: str, workspace: Workspace, tiny_model: Path) -> None:
    _, encoder = opened(name, workspace, tiny_model)
    long = "red dog " * 2000
    cut = long[: encoder.max_chars]
    assert np.array_equal(encoder.encode([long]), encoder.encode([cut]))


@pytest.mark.parametrize("name", embedders.names())
def test_every_embedder_agrees_with_itself_in_other_company(name: str, workspace: Workspace, tiny_model: Path) -> None:
    """Up to the last bits of a padded batch; bit for bit where a row is made alone."""
    _, encoder = opened(name, workspace, tiny_model)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    together = encoder.encode(TEXTS)
    if name == "static":
        assert np.array_equal(alone, together)
    np.testing.assert_allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize("name", embedders.names())
def test_every_embedder_says_what_its_bytes_depend_on(name: str, workspace: Workspace, tiny_model: Path) -> None:
    embedder, _ = opened(name, workspace, tiny_model)
    assert {"device", "numpy"} <= embedder.environment().keys()
    settings = plain(embedder.settings)
    assert settings["max_tokens"] == 32
    assert str(tiny_model) not in repr(settings)
    assert pickle.loads(pickle.dumps(embedder)) == embedder
