"""The `static` encoder: a sum over a table, each row alone, nothing undefined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import VOCABULARY, tiny_tokenizer

from dataforge.embeddings import EmbedConfig, embedders
from dataforge.embeddings.embedders.static import StaticEncoder, StaticSettings
from dataforge.errors import ConfigError, UnknownName

TABLE = np.random.default_rng(0).standard_normal((len(VOCABULARY), 8)).astype(np.float32)
ID = {token: index for index, token in enumerate(VOCABULARY)}


def encoder(**settings: int) -> StaticEncoder:
    tokenizer = tiny_tokenizer()
    tokenizer.no_padding()
    return StaticEncoder(TABLE, tokenizer, StaticSettings(**settings))


def test_a_row_is_the_sum_of_its_tokens_vectors() -> None:
    rows = encoder().encode(["The red dogs", ""])
    expected = TABLE[[ID["the"], ID["red"], ID["dog"], ID["##s"]]].astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(rows[0], expected, rtol=1e-5, atol=1e-6)
    assert not rows[1].any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="the red dog apple é人☃\n", max_size=40), min_size=1, max_size=12), st.data())
def test_a_row_does_not_depend_on_the_texts_beside_it(texts: list[str], data: st.DataObject) -> None:
    """Bit for bit: alone, in any batch, in any order."""
    opened = encoder()
    together = opened.encode(texts)
    order = data.draw(st.permutations(range(len(texts))))
    cut = data.draw(st.integers(0, len(texts)))
    moved = np.concatenate([opened.encode([texts[i] for i in part]) for part in (order[:cut], order[cut:])])
    assert np.array_equal(moved, together[list(order)])
    assert np.array_equal(encoder().encode(texts[:1]), together[:1])


def test_only_the_first_tokens_and_characters_are_read() -> None:
    few = encoder(max_tokens=3)
    assert np.array_equal(few.encode(["red dog cat moon sun"]), few.encode(["red dog cat"]))
    assert not np.array_equal(few.encode(["red dog cat"]), few.encode(["red dog"]))
    short = encoder(max_chars=7)
    assert np.array_equal(short.encode(["red dog cat"]), short.encode(["red dog"]))


def test_texts_in_unknown_signs_share_the_unknown_tokens_vector() -> None:
    rows = encoder().encode(["☃", "ж", "☃"])
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], TABLE[ID["[UNK]"]])


def test_settings_an_embedder_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_tokens"):
        embedders.get("static")(EmbedConfig(batch_tokens=100))
    with pytest.raises(ConfigError, match="width of its model"):
        embedders.get("sentence-transformers")(EmbedConfig(dimensions=100))
    with pytest.raises(ConfigError, match="max_tokens must be at least 1"):
        EmbedConfig(max_tokens=0)
    with pytest.raises(ConfigError, match="no device 'tpu'"):
        EmbedConfig(device="tpu")
    with pytest.raises(UnknownName, match="statc"):
        embedders.get("statc")
