"""`sentence-transformers`: the library's own answer, in batches of one length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataforge.embeddings import EmbedConfig, embedders
from dataforge.embeddings.embedders.sentence_transformer import length_batches
from dataforge.errors import ConfigError
from dataforge.stage import Run
from dataforge.workspace import Workspace

TEXTS = ["red apple", "the moon and the sun " * 9, "", "dog", "  ", "rust of iron", "cat " * 100]


@given(st.lists(st.integers(1, 64), max_size=50), st.integers(1, 256))
def test_batches_hold_every_text_once_and_keep_to_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(length_batches(lengths, budget))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= budget
    sorted_lengths = [lengths[place] for batch in batches for place in batch]
    assert sorted_lengths == sorted(lengths, reverse=True)


def encode(workspace: Workspace, config: EmbedConfig, texts: list[str]) -> np.ndarray:
    embedder = embedders.get("sentence-transformers")(config)
    return embedder.open(embedder.inputs(workspace, Run())).encode(texts)


def test_rows_are_the_librarys_and_blank_texts_are_zero(workspace: Workspace, tiny_model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    config = EmbedConfig(embedder="sentence-transformers", model=str(tiny_model), max_tokens=32, batch_tokens=64)
    rows = encode(workspace, config, TEXTS)
    assert rows.dtype == np.float32
    model = SentenceTransformer(str(tiny_model), device="cpu", local_files_only=True)
    model.max_seq_length = 32
    for text, row in zip(TEXTS, rows, strict=True):
        if text.strip():
            np.testing.assert_allclose(row, model.encode(text), atol=2e-6)
        else:
            assert not row.any()
    assert np.array_equal(rows, encode(workspace, config, TEXTS))


def test_threads_are_as_before_and_too_many_tokens_are_refused(workspace: Workspace, tiny_model: Path) -> None:
    import torch

    before = torch.get_num_threads()
    config = EmbedConfig(embedder="sentence-transformers", model=str(tiny_model), max_tokens=8)
    encode(workspace, config, TEXTS)
    assert torch.get_num_threads() == before
    config = EmbedConfig(embedder="sentence-transformers", model=str(tiny_model), max_tokens=65)
    with pytest.raises(ConfigError, match="max_tokens is 65, the model reads 64"):
        encode(workspace, config, TEXTS)
