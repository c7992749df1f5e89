"""Words in many languages, and which of them name a cluster."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataforge.clusters.keywords import class_tf_idf, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Straße, STRASSE", ["strasse", "strasse"]),
        ("don’t l'eau", ["don’t", "l'eau"]),
        ("x 42 3d _ __ a1", ["3d", "a1"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("학습 기계", ["학습", "기계"]),
        ("日本語abc", ["日本", "本語", "abc"]),
        ("字", ["字"]),
        ("Приве́т", ["приве́т"]),
        ("w" * 33, []),
        ("", []),
    ],
)
def test_words_are_found_in_every_script(text: str, words: list[str]) -> None:
    assert list(words_of(text)) == words


@given(st.text())
def test_words_never_hold_blanks_or_nothing(text: str) -> None:
    for word in words_of(text):
        assert word
        assert not any(sign.isspace() for sign in word)


def test_a_word_of_one_cluster_outweighs_a_word_of_all() -> None:
    clusters, words = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 2, 0])
    weight = class_tf_idf(clusters, words, np.array([10, 10, 10, 10, 10]))
    assert weight[1] > weight[0]
    assert weight[3] > weight[2]
    assert class_tf_idf(clusters[:0], words[:0], words[:0]).shape == (0,)
