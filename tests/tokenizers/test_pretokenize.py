"""The hand-written splitters against the regular expressions, on every code point, any text and any bytes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge import _native
from dataforge.errors import TokenizerError
from dataforge.native.make_unicode_tables import class_of_each_code_point
from dataforge.tokenizers import pretokenize
from dataforge.tokenizers.pretokenize import PATTERNS, pattern_name, pretokens

LETTERS = ["a", "Z", "s", "S", "t", "d", "m", "ll", "Ve", "re", "ſ", "é", "É", "ǅ", "ʰ", "日", "ß", "İ", "ا", "Ω", "ı"]
OTHERS = [" ", "\n", "\r", "\t", "'", "1", "²", "Ⅷ", "٣", "\u0301", "\u0903", "!", "/", "_", "\x00", "\x1c", "\x85"]
RARE = [
    "\u00a0",
    "\u1680",
    "\u2028",
    "\u202f",
    "\u3000",
    "\ufeff",
    "\u200b",
    "😀",
    "\ud800",
    "\udfff",
    "\U0010ffff",
    "’",
]
INVALID = [b"\xff", b"\x80", b"\xc3", b"\xc0\x80", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80"]

characters = st.sampled_from(LETTERS + OTHERS + RARE)
texts = st.lists(characters | st.characters(), max_size=12).map("".join)
byte_texts = st.lists(
    characters.map(pretokenize.as_bytes) | st.sampled_from(INVALID) | st.binary(max_size=3), max_size=12
).map(b"".join)


def native_pretokens(text: str | bytes, pattern: str) -> list[bytes]:
    batch = _native.TextBatch()
    batch.add_sequence([text])
    data, start, pieces = pretokenize.as_bytes(text), 0, []
    for end in _native.split(batch, pattern).tolist():
        pieces.append(data[start:end])
        start = end
    return pieces


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_code_point_alone_and_beside_others_is_cut_as_the_regular_expression_cuts_it(pattern):
    rng = random.Random(pattern)
    code_points = [*range(0x32000), *range(0xE0000, 0xE0200), *rng.sample(range(0x32000, 0x110000), 5000)]
    text = "".join(f"{chr(c)}x {chr(c)}1{chr(c)}" for c in code_points)
    assert native_pretokens(text, pattern) == pretokens(text, pattern)
    alone = [chr(c) for c in code_points]
    batch = _native.TextBatch()
    batch.add_sequence(alone)
    assert len(_native.split(batch, pattern)) == len(alone)


def test_every_code_point_has_the_class_that_regex_gives_it():
    everything = "".join(map(chr, range(0x110000)))
    expected = class_of_each_code_point()
    well_formed = [c for c in everything if not 0xD800 <= ord(c) < 0xE000]
    found = _native.character_classes(np.frombuffer("".join(well_formed).encode(), dtype=np.uint8))
    assert found.tobytes() == bytes(expected[ord(c)] for c in well_formed)


@settings(max_examples=400, deadline=None)
@given(text=texts)
def test_any_text_is_cut_as_the_regular_expressions_cut_it(text):
    for pattern in PATTERNS:
        assert native_pretokens(text, pattern) == pretokens(text, pattern)


@settings(max_examples=400, deadline=None)
@given(data=byte_texts)
def test_any_bytes_are_cut_as_the_regular_expressions_cut_them_and_none_is_lost(data):
    for pattern in PATTERNS:
        pieces = native_pretokens(data, pattern)
        assert pieces == pretokens(data, pattern)
        assert b"".join(pieces) == data


def test_thousands_of_small_texts_are_cut_as_the_regular_expressions_cut_them():
    rng = random.Random(0)
    choices = [pretokenize.as_bytes(c) for c in LETTERS + OTHERS + RARE] + INVALID
    for _ in range(6000):
        data = b"".join(rng.choices(choices, k=rng.randint(1, 9)))
        for pattern in PATTERNS:
            assert native_pretokens(data, pattern) == pretokens(data, pattern), (pattern, data)


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_the_spellings_of_tiktoken_and_of_older_files_mean_the_pattern_they_are_named_after(text):
    characters = pretokenize.as_bytes(text).decode("utf-8", "surrogateescape")
    for spelling, name in pretokenize._SPELLINGS.items():
        found = regex.findall(spelling.replace("$", r"\Z"), characters)
        assert found == regex.findall(PATTERNS[name], characters)


def test_a_pattern_is_known_by_name_and_by_its_owner_s_spelling():
    import tiktoken_ext.openai_public as published

    assert pattern_name(published.r50k_pat_str) == "gpt2"
    assert pattern_name(PATTERNS["o200k"]) == "o200k"
    assert pattern_name(r"\w+") == r"\w+"


def test_what_a_pattern_does_not_match_becomes_a_pretoken_of_its_own():
    assert pretokens("ab, cd!", r"\w+") == [b"ab", b", ", b"cd", b"!"]
    assert pretokens("ab", r"x*") == [b"ab"]
    assert pretokens(b"a\xffb", r"[a-z]") == [b"a", b"\xff", b"b"]


def test_a_pattern_that_does_not_compile_is_refused_with_the_reason():
    with pytest.raises(TokenizerError, match="does not compile"):
        pattern_name("(")


@pytest.mark.parametrize("unit", ["a", " ", "\n \t", "A日", "\u0301", "'", "1", "\u0301A", " \u00a0"])
def test_a_megabyte_of_one_kind_is_cut_in_linear_time(unit):
    text = unit * (10**6 // len(unit.encode()))
    for pattern in PATTERNS:
        assert b"".join(native_pretokens(text, pattern)) == text.encode()
