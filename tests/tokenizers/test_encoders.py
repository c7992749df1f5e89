"""Both encoders: the worked examples, native code against the twins, and input meant to be slow."""

from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge import _native
from dataforge.tokenizers import Tokenizer, Vocabulary, train
from dataforge.tokenizers.bpe import encode_by_rank
from dataforge.tokenizers.lbpe import encode_longest_first
from dataforge.tokenizers.pretokenize import pretokens
from dataforge.tokenizers.scaffold_bpe import demolitions
from dataforge.tokenizers.tokenizer import native_encoder

NO_MERGES = np.zeros((0, 3), dtype=np.int32)


def twin_encode(tokenizer: Tokenizer, text: str | bytes) -> list[int]:
    """Ids by the plain twins alone."""
    vocabulary = tokenizer.vocabulary
    rows = vocabulary.merges.tolist()
    merges = {(left, right): (rank, token) for rank, (left, right, token) in enumerate(rows)}
    scaffolds = set(range(vocabulary.num_model_ids, vocabulary.num_ids))
    parts = demolitions([tuple(row) for row in rows], scaffolds)
    model = {vocabulary.tokens[i]: i for i in range(vocabulary.num_model_ids) if vocabulary.in_text[i]}
    ids: list[int] = []
    for word in pretokens(text, vocabulary.pattern):
        if tokenizer.encoder == "lbpe":
            ids += encode_longest_first(word, model)
        else:
            ids += [part for t in encode_by_rank(word, vocabulary.byte_ids, merges) for part in parts.get(t, [t])]
    return ids


def whole_words(vocabulary: Vocabulary, encoder: str, words: list[bytes]) -> list[list[int]]:
    """Ids of words that are not cut first."""
    batch = _native.TextBatch()
    batch.add_sequence(words)
    token_ids, offsets = native_encoder(vocabulary, encoder, "whole").encode(batch, 1)
    return [token_ids[first:last].tolist() for first, last in itertools.pairwise(offsets.tolist())]


def vocabulary_of(tokens: list[bytes], order: list[int] | None = None) -> Vocabulary:
    """Tokens without merges, for the longest-first encoder; ids after the bytes in the order given."""
    order = order or list(range(len(tokens)))
    spelled = {256 + place: tokens[i] for place, i in enumerate(order)}
    return Vocabulary(pattern="gpt2", num_model_ids=256 + len(tokens), merges=NO_MERGES, spelled=spelled)


vocabularies = st.lists(st.text("abc", min_size=2, max_size=9), max_size=12, unique=True).map(
    lambda told: [token.encode() for token in told]
)
words = st.text("abc", min_size=1, max_size=90).map(str.encode)


# -- worked examples


def test_longest_first_takes_the_long_token_that_rank_order_blocks():
    tokenizer = train(["ab "] * 9 + ["cd "] * 7 + ["bcd "] * 5, vocab_size=259, algorithm="bpe", pattern=r"\w+|\W+")
    assert tokenizer.vocab[256:] == [b"cd", b"ab", b"bcd"]
    assert [tokenizer.vocab[token] for token in tokenizer.encode("abcd")] == [b"ab", b"cd"]
    longest = tokenizer.with_encoder("lbpe")
    assert [tokenizer.vocab[token] for token in longest.encode("abcd")] == [b"a", b"bcd"]


def test_longest_first_takes_the_leftmost_of_two_equally_long_tokens():
    vocabulary = vocabulary_of([b"ad", b"aa"])
    assert whole_words(vocabulary, "lbpe", [b"aad"]) == [[257, ord("d")]]


# -- against the twins


@settings(max_examples=400, deadline=None)
@given(tokens=vocabularies, several=st.lists(words, max_size=4))
def test_native_longest_first_is_the_window_that_slides_at_every_length(tokens, several):
    vocabulary = vocabulary_of(tokens)
    model = {token: i for i, token in enumerate(vocabulary.tokens)}
    assert whole_words(vocabulary, "lbpe", several) == [encode_longest_first(word, model) for word in several]


@pytest.mark.filterwarnings("ignore:the texts have pairs for")
def test_native_encoders_give_the_twins_ids_on_thousands_of_words():
    rng = random.Random(2)
    for _ in range(60):
        letters = rng.choice([b"ab", b"abc", b"abcdef"])
        corpus = [bytes(rng.choices(letters, k=rng.randint(1, 20))) for _ in range(25)]
        tokenizer = train(corpus, vocab_size=256 + rng.randint(1, 40), pattern=r"[\s\S]+")
        tests = [bytes(rng.choices(letters, k=rng.choice([1, 3, 8, 20, 63, 64, 65, 90]))) for _ in range(40)]
        for encoder in ("bpe", "lbpe"):
            told = tokenizer.with_encoder(encoder)
            token_ids, offsets = told.encode_batch(tests + tests, 1)  # the second half from the cache
            for i, word in enumerate(tests + tests):
                assert token_ids[offsets[i] : offsets[i + 1]].tolist() == twin_encode(told, word)


@pytest.mark.parametrize("encoder", ["bpe", "lbpe"])
def test_the_sample_is_encoded_as_the_twins_encode_it(bpe, scaffold, sample_texts, encoder):
    for tokenizer in (bpe.with_encoder(encoder), scaffold.with_encoder(encoder)):
        for text in sample_texts[:60:3]:
            assert tokenizer.encode(text).tolist() == twin_encode(tokenizer, text)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60) | st.text(max_size=60))
def test_any_text_is_encoded_as_the_twins_encode_it(bpe, scaffold, data):
    for tokenizer in (bpe, scaffold):
        for encoder in ("bpe", "lbpe"):
            told = tokenizer.with_encoder(encoder)
            assert told.encode(data).tolist() == twin_encode(told, data)


# -- invariants


@settings(max_examples=200, deadline=None)
@given(tokens=vocabularies, word=words, seed=st.integers(0, 99))
def test_longest_first_does_not_depend_on_the_order_of_the_vocabulary(tokens, word, seed):
    order = random.Random(seed).sample(range(len(tokens)), len(tokens))
    one, other = vocabulary_of(tokens), vocabulary_of(tokens, order)
    spelled = [
        [vocabulary.tokens[token] for token in whole_words(vocabulary, "lbpe", [word])[0]]
        for vocabulary in (one, other)
    ]
    assert spelled[0] == spelled[1]


@settings(max_examples=200, deadline=None)
@given(tokens=vocabularies, word=words)
def test_longest_first_leaves_no_token_inside_a_run_of_single_bytes_and_takes_the_longest_match(tokens, word):
    vocabulary = vocabulary_of(tokens)
    spelled = [vocabulary.tokens[token] for token in whole_words(vocabulary, "lbpe", [word])[0]]
    assert b"".join(spelled) == word
    for single, run in itertools.groupby(spelled, key=lambda token: len(token) == 1):
        joined = b"".join(run)
        assert not single or not any(token in joined for token in tokens)
    present = [token for token in tokens if token in word]
    if present:
        longest = max(map(len, present))
        assert max(map(len, spelled)) == longest
        first = min(word.find(token) for token in present if len(token) == longest)
        starts = itertools.accumulate(map(len, spelled), initial=0)
        assert any(start == first and len(token) == longest for start, token in zip(starts, spelled, strict=False))


@settings(max_examples=100, deadline=None)
@given(tokens=vocabularies)
def test_longest_first_gives_every_token_back_as_itself(tokens):
    vocabulary = vocabulary_of(tokens)
    assert whole_words(vocabulary, "lbpe", tokens) == [[256 + i] for i in range(len(tokens))]


def test_rank_order_gives_every_token_back_as_itself_and_every_scaffold_as_its_parts(scaffold):
    vocabulary = scaffold.vocabulary
    parts = demolitions(vocabulary.merges.tolist(), set(range(vocabulary.num_model_ids, vocabulary.num_ids)))
    merged = vocabulary.merges[:, 2].tolist()
    found = whole_words(vocabulary, "bpe", [vocabulary.tokens[token] for token in merged])
    assert found == [parts[token] for token in merged]


def test_no_scaffold_is_ever_emitted(scaffold, sample_texts):
    hidden = sorted(scaffold.scaffolds)
    for encoder in ("bpe", "lbpe"):
        for texts in (sample_texts, hidden, [b" ".join(hidden)]):
            token_ids, _ = scaffold.with_encoder(encoder).encode_batch(texts)
            assert token_ids.max() < scaffold.vocab_size


def test_long_tokens_become_more_frequent_and_fewer_tokens_are_needed(sample_texts):
    """LBPE's claim, and Scaffold-BPE's, on texts that were not trained on."""
    options = {"vocab_size": 3000, "algorithm": "bpe"}
    plain = train(sample_texts[::2], **options)
    held_out = sample_texts[1::2]
    by_rank, _ = plain.encode_batch(held_out)
    by_length, _ = plain.with_encoder("lbpe").encode_batch(held_out)
    long = np.array([len(token) >= 8 for token in plain.vocab])
    assert long[by_length].sum() > long[by_rank].sum()
    assert len(by_length) < len(by_rank)


# -- input meant to be slow

HOSTILE = {
    "one letter": b"a" * 10**6,
    "two letters": b"ab" * (5 * 10**5),
    "no spaces": bytes(random.Random(3).choices(b"abcdefghij", k=10**6)),
    "zeros": bytes(10**6),
    "white space": b" " * 10**6,
    "invalid": b"\xff\xfe" * (5 * 10**5),
    "Chinese without a stop": "天地玄黃宇宙洪荒".encode() * 40_000,
}


@pytest.fixture(scope="module")
def greedy() -> Tokenizer:
    """A vocabulary that matches hostile input everywhere: runs of every kind up to 2,048 bytes long."""
    texts = [b"a" * 5000, b"ab" * 5000, bytes(5000), b" " * 5000, b"\xff\xfe" * 3000, "天地玄黃宇宙洪荒".encode() * 200]
    texts += [bytes(random.Random(4).choices(b"abcdefghij", k=30_000))]
    return train(texts, vocab_size=1500)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("encoder", ["bpe", "lbpe"])
def test_a_megabyte_of_hostile_text_is_encoded_in_seconds(greedy, name, encoder):
    tokenizer = greedy.with_encoder(encoder)
    began = time.process_time()
    token_ids = tokenizer.encode(HOSTILE[name])
    assert time.process_time() - began < 5
    assert tokenizer.decode_bytes(token_ids) == HOSTILE[name]


def test_longest_first_with_every_run_as_a_token_is_near_linear():
    vocabulary = vocabulary_of([b"a" * size for size in range(2, 1500)] + [b"a" * 5 + b"b" * 1600])
    began = time.process_time()
    found = whole_words(vocabulary, "lbpe", [b"a" * 10**6, (b"a" * 1000 + b"b" * 1600) * 400])
    assert time.process_time() - began < 5
    assert len(found[0]) == -(-(10**6) // 1499)
    assert len(found[1]) == 800
