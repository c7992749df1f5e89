"""Training: the papers' worked examples, and native code against the twins that recount at every step."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dataforge import _native
from dataforge.errors import TokenizerError
from dataforge.tokenizers import WordCounts, count, train
from dataforge.tokenizers.bpe import Trained, train_bpe
from dataforge.tokenizers.scaffold_bpe import demolitions, train_scaffold_bpe
from dataforge.tokenizers.tokenizer import Tokenizer

KINDS = {0: "return", 1: "merge", 2: "flag"}

LETTERS = {b"abc": 10, b"ab": 6, b"de": 8, b"fgh": 5, b"fg": 1, b"ij": 3}
CLASSIC = {b"low": 5, b"lower": 2, b"newest": 6, b"widest": 3}

words = st.dictionaries(
    st.text("ab", min_size=1, max_size=12) | st.text("abcde", min_size=1, max_size=8), st.integers(1, 9), min_size=1,
    max_size=8,
).map(lambda told: {word.encode(): count for word, count in told.items()})  # fmt: skip


def counts_of(words: dict[bytes, int], pattern: str = "gpt2") -> WordCounts:
    ordered = sorted(words)
    return WordCounts(
        pattern,
        np.frombuffer(b"".join(ordered), dtype=np.uint8),
        np.cumsum([0, *map(len, ordered)]),
        np.array([words[word] for word in ordered], dtype=np.int64),
    )


def native_training(words: dict[bytes, int], vocab_size: int, num_special_tokens: int, scaffold: bool) -> Trained:
    counts = counts_of(words)
    left, right, flags, frequency, events, _ = _native.train_merges(
        counts.data, counts.offsets, counts.counts, vocab_size, num_special_tokens, scaffold
    )
    return Trained(
        num_special_tokens,
        list(zip(left.tolist(), right.tolist(), strict=True)),
        set(np.flatnonzero(flags).tolist()),
        frequency.tolist(),
        [(KINDS[kind], *rest) for kind, *rest in events.reshape(-1, 4).tolist()],
    )


def merged(tokenizer: Tokenizer) -> list[bytes]:
    """Tokens of E in order of creation, bytes and special tokens left out."""
    return [left + right for left, right in tokenizer.merges]


def test_scaffold_bpe_makes_the_tokens_of_the_worked_example_step_by_step():
    for trained in (train_scaffold_bpe(LETTERS, 261), native_training(LETTERS, 261, 0, True)):
        spell = trained.spelling
        told = [(kind, spell(a) + (spell(b) if b >= 0 else b""), frequency) for kind, a, b, frequency in trained.events]
        assert told == [
            ("merge", b"ab", 16),
            ("merge", b"abc", 10), ("flag", b"ab", 6),
            ("merge", b"de", 8),
            ("return", b"ab", 6),
            ("merge", b"fg", 6),
            ("merge", b"fgh", 5), ("flag", b"fg", 1),
            ("merge", b"ij", 3),
        ]  # fmt: skip
        assert trained.num_tokens == 261


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abc", "abc"), ("ab", "ab"), ("fg", "f g"), ("fgh", "fgh"), ("abfg", "ab f g"), ("fgfgh", "f g fgh"),
     ("cab", "c ab")],
)  # fmt: skip
def test_scaffold_bpe_encodes_the_worked_example(text, expected):
    tokenizer = train(counts_of(LETTERS), vocab_size=261)
    assert [tokenizer.vocab[token].decode() for token in tokenizer.encode(text)] == expected.split()


def test_plain_bpe_keeps_what_scaffold_bpe_gives_up():
    tokenizer = train(counts_of(LETTERS), vocab_size=261, algorithm="bpe")
    assert merged(tokenizer) == [b"ab", b"abc", b"de", b"fg", b"fgh"]
    assert tokenizer.scaffolds == set()


def test_scaffold_bpe_makes_the_tokens_of_the_classic_example():
    tokenizer = train(counts_of(CLASSIC), vocab_size=260)
    assert merged(tokenizer) == b"es est lo low ew new newest dest idest widest er".split()
    assert tokenizer.scaffolds == set(b"es est lo ew new dest idest".split())
    assert tokenizer.vocab[256:] == b"low newest widest er".split()
    assert [tokenizer.vocab[token] for token in tokenizer.encode("lowest")] == b"low e s t".split()
    assert [tokenizer.vocab[token] for token in tokenizer.encode("newer")] == b"n e w er".split()
    plain = train(counts_of(CLASSIC), vocab_size=260, algorithm="bpe")
    assert [plain.vocab[token] for token in plain.encode("lowest")] == [b"low", b"est"]


def test_a_queue_that_runs_dry_gives_what_there_is_and_says_so():
    with pytest.warns(UserWarning, match="261 ids only, 263 were asked for"):
        tokenizer = train(counts_of(CLASSIC), vocab_size=263)
    assert tokenizer.vocab_size == 261
    assert tokenizer.training["ran_dry"] is True


@settings(max_examples=300, deadline=None)
@given(words=words, more=st.integers(0, 14), special=st.integers(0, 2), scaffold=st.booleans())
def test_native_training_does_what_the_twin_does_event_by_event(words, more, special, scaffold):
    vocab_size = 256 + special + more
    twin = (train_scaffold_bpe if scaffold else train_bpe)(words, vocab_size, special)
    assert native_training(words, vocab_size, special, scaffold) == twin


def test_native_training_does_what_the_twin_does_on_a_thousand_random_corpora():
    rng = random.Random(1)
    for _ in range(1000):
        letters = rng.choice([b"a", b"ab", b"abc", b"abcdef"])
        words = {bytes(rng.choices(letters, k=rng.randint(1, 14))): rng.choice([1, 1, 2, 3, 20]) for _ in range(7)}
        vocab_size, scaffold = 256 + rng.randint(0, 20), rng.random() < 0.7
        twin = (train_scaffold_bpe if scaffold else train_bpe)(words, vocab_size)
        assert native_training(words, vocab_size, 0, scaffold) == twin, words


@settings(max_examples=100, deadline=None)
@given(words=words, more=st.integers(0, 12))
def test_e_of_scaffold_bpe_is_the_vocabulary_of_plain_bpe(words, more):
    scaffold = native_training(words, 256 + more, 0, True)
    assert native_training(words, 256 + len(scaffold.merges), 0, False).merges == scaffold.merges
    assert len(scaffold.merges) == more + len(scaffold.scaffolds) or scaffold.num_tokens < 256 + more


@settings(max_examples=100, deadline=None)
@given(words=words, few=st.integers(0, 6), more=st.integers(0, 8))
def test_flags_of_a_smaller_vocabulary_are_those_of_a_longer_run_when_it_had_that_size(words, few, more):
    short = native_training(words, 256 + few, 0, True)
    assume(short.num_tokens == 256 + few)
    longer = native_training(words, 256 + few + more, 0, True)
    assert longer.events[: len(short.events)] == short.events


def test_flags_are_never_set_on_bytes_or_special_tokens(sample_texts):
    tokenizer = train(sample_texts, vocab_size=1000, special_tokens=["<|a|>", "<|b|>"])
    assert tokenizer.vocab[:258] == [*(bytes([byte]) for byte in range(256)), b"<|a|>", b"<|b|>"]
    assert min(map(len, tokenizer.scaffolds)) > 1


def test_the_result_does_not_depend_on_order_threads_or_doubling(sample_texts):
    once = train(sample_texts, vocab_size=1500, num_threads=1)
    assert train(sample_texts[::-1], vocab_size=1500, num_threads=2).fingerprint == once.fingerprint
    assert train((text for text in sample_texts), vocab_size=1500, num_threads=3).training == once.training
    assert train([*sample_texts, *sample_texts], vocab_size=1500).fingerprint == once.fingerprint


def test_there_are_exactly_as_many_ids_as_asked_for_and_the_scaffolds_beside_them(scaffold):
    assert scaffold.vocab_size == len(scaffold.vocab) == len(set(scaffold.vocab)) == 2000
    assert scaffold.vocabulary.num_ids == 2000 + len(scaffold.scaffolds) == scaffold.training["expanded_size"]
    assert scaffold.training["flags_set"] - scaffold.training["flags_returned"] == len(scaffold.scaffolds)
    assert not scaffold.scaffolds & set(scaffold.vocab)


def test_frequencies_left_by_training_are_those_of_the_words_encoded_without_demolition(sample_texts):
    counts = count(sample_texts)
    *_, flags, frequency, _, _ = _native.train_merges(counts.data, counts.offsets, counts.counts, 1200, 0, True)
    plain = train(counts, vocab_size=len(flags), algorithm="bpe")
    token_ids, _ = plain.encode_batch(sample_texts)
    assert np.bincount(token_ids, minlength=len(flags)).tolist() == frequency.tolist()


def test_each_scaffold_gives_way_to_model_tokens_that_spell_it(scaffold):
    parts = demolitions(scaffold.vocabulary.merges.tolist(), set(range(2000, scaffold.vocabulary.num_ids)))
    tokens = scaffold.vocabulary.tokens
    for token, given_way in parts.items():
        assert b"".join(tokens[part] for part in given_way) == tokens[token]
        assert max(given_way) < 2000
        assert (given_way == [token]) == (token < 2000)


def test_a_word_of_a_hundred_thousand_equal_bytes_is_trained_on_in_little_time():
    tokenizer = train([b"a" * 100_000, b"ab" * 50_000], vocab_size=280, algorithm="bpe")
    assert tokenizer.vocab_size == 280
    assert tokenizer.decode_bytes(tokenizer.encode(b"a" * 1001)) == b"a" * 1001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "unigram"}, "no algorithm is called 'unigram'"),
        ({"vocab_size": 255}, "cannot hold 256 bytes"),
        ({"vocab_size": 257, "special_tokens": ["<a>", "<b>"]}, "2 special tokens"),
        ({"special_tokens": ["<a>", "<a>"]}, "given twice"),
        ({"special_tokens": [""]}, "special token 0 is ''"),
        ({"special_tokens": "<a>"}, "one string"),
        ({"eos": "<a>"}, "eos is '<a>', which is no special token"),
        ({"encoder": "unigram"}, "no encoder"),
        ({"pattern": "("}, "does not compile"),
        ({"num_threads": 0}, "num_threads must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
    with pytest.raises(TokenizerError, match=message):
        train(["some text, some more text"], **{"vocab_size": 258, **options})


@pytest.mark.parametrize("texts", ["one string", [1], [None], [b"ok", 2.5]])
def test_what_is_no_text_is_refused(texts):
    with pytest.raises(TokenizerError):
        train(texts, vocab_size=300)


def test_no_text_at_all_gives_the_bytes():
    with pytest.warns(UserWarning, match="256 ids only"):
        assert train([], vocab_size=300).vocab_size == 256
