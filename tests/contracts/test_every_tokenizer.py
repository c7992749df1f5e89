"""What holds for every way to train and encode, and every named pattern."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from dataforge.tokenizers import Tokenizer, train
from dataforge.tokenizers.pretokenize import PATTERNS, as_bytes, pretokens
from dataforge.tokenizers.tokenizer import ENCODERS
from dataforge.tokenizers.train import ALGORITHMS

CORPUS = Path(__file__).parents[1] / "corpus_tiny"
ODD = ["", " ", "\x00", "\ufeff", "\u2028", "\ud83d", "don't DON'T it'ſ", "1234567", "\r\n\r\n  x", "日本語 テスト",
       "😀" * 9, b"\xff\xfe\x00", b"\xc3(", b"\xed\xa0\x80", "a" * 5000, " " * 5000, "x\n  \n ",
       "<|endoftext|>"]  # fmt: skip

every_tokenizer = pytest.mark.parametrize(
    ("algorithm", "pattern", "encoder"),
    [(algorithm, pattern, encoder) for algorithm in ALGORITHMS for pattern in PATTERNS for encoder in ENCODERS],
)


@cache
def sample() -> list[str]:
    lines = [line for path in sorted(CORPUS.glob("*.jsonl")) for line in path.read_text("utf-8").split("\n") if line]
    return [json.loads(line)["text"] for line in lines]


@cache
def trained(algorithm: str, pattern: str) -> Tokenizer:
    special = ["<|begin|>", "<|endoftext|>"]
    return train(sample(), algorithm=algorithm, vocab_size=1000, pattern=pattern, special_tokens=special,
                 bos="<|begin|>", eos="<|endoftext|>")  # fmt: skip


@every_tokenizer
def test_every_tokenizer_gives_any_text_back_with_ids_of_its_vocabulary(algorithm, pattern, encoder):
    tokenizer = trained(algorithm, pattern).with_encoder(encoder)
    rng = random.Random(7)
    texts = [*sample()[::4], *ODD, *(rng.randbytes(rng.randint(1, 200)) for _ in range(30))]
    token_ids, offsets = tokenizer.encode_batch(texts, 2)
    assert token_ids.dtype == tokenizer.dtype
    special = set(tokenizer.special_tokens.values())
    for i, text in enumerate(texts):
        own = token_ids[offsets[i] : offsets[i + 1]]
        assert own.tolist() == tokenizer.encode(text).tolist()
        assert tokenizer.decode_bytes(own) == as_bytes(text)
        assert not special & set(own.tolist())
        assert len(own) == 0 or own.max() < tokenizer.vocab_size == 1000


@every_tokenizer
def test_every_tokenizer_encodes_a_text_as_its_pretokens(algorithm, pattern, encoder):
    tokenizer = trained(algorithm, pattern).with_encoder(encoder)
    for text in [*sample()[:5], *ODD]:
        pieces = [tokenizer.encode(piece) for piece in pretokens(text, pattern)]
        assert np.array_equal(tokenizer.encode(text), np.concatenate([np.zeros(0, tokenizer.dtype), *pieces]))


@every_tokenizer
def test_every_tokenizer_survives_its_file(tmp_path, algorithm, pattern, encoder):
    tokenizer = trained(algorithm, pattern).with_encoder(encoder)
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.bos_id, loaded.eos_id, loaded.vocab_size, loaded.dtype) == (256, 257, 1000, np.uint16)
    assert loaded.encode(sample()[0]).tolist() == tokenizer.encode(sample()[0]).tolist()


@every_tokenizer
def test_every_tokenizer_has_all_bytes_and_special_tokens_and_no_scaffold_among_its_ids(algorithm, pattern, encoder):
    tokenizer = trained(algorithm, pattern).with_encoder(encoder)
    assert tokenizer.vocab[:258] == [*(bytes([byte]) for byte in range(256)), b"<|begin|>", b"<|endoftext|>"]
    assert bool(tokenizer.scaffolds) == (algorithm == "scaffold-bpe")
    assert not tokenizer.scaffolds & set(tokenizer.vocab)
    assert len(tokenizer.merges) == len(tokenizer.vocab) - 258 + len(tokenizer.scaffolds)
    for token in tokenizer.vocab[258::17]:
        whole = pretokens(token, pattern) == [token]
        assert not whole or [tokenizer.vocab[i] for i in tokenizer.encode(token)] == [token]


def test_different_settings_have_different_fingerprints():
    every = [trained(a, p).with_encoder(e).fingerprint for a in ALGORITHMS for p in PATTERNS for e in ENCODERS]
    assert len(set(every)) == len(every)
