"""Texts and tokenizers that several tests start from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataforge.tokenizers import Tokenizer, count, train

CORPUS = Path(__file__).parents[1] / "corpus_tiny"


@pytest.fixture(scope="session")
def sample_texts() -> list[str]:
    """The bundled documents: prose, code, and ten languages."""
    lines = [line for path in sorted(CORPUS.glob("*.jsonl")) for line in path.read_text("utf-8").split("\n") if line]
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture(scope="session")
def bpe(sample_texts: list[str]) -> Tokenizer:
    """Plain BPE over the sample."""
    return train(sample_texts, algorithm="bpe", vocab_size=2000, special_tokens=["<|endoftext|>"], eos="<|endoftext|>")


@pytest.fixture(scope="session")
def scaffold(sample_texts: list[str]) -> Tokenizer:
    """Scaffold-BPE over the sample."""
    tokenizer = train(count(sample_texts, pattern="cl100k"), vocab_size=2000, special_tokens=["<|bos|>", "<|eos|>"])
    assert len(tokenizer.scaffolds) > 50
    return tokenizer
