"""What clusters are about, in words: class-based TF-IDF over a sample of each cluster's documents.

c-TF-IDF is BERTopic's (Grootendorst 2022, arXiv:2203.05794, section 3.3): all texts of a cluster are one text.
Departure: a word counts once a document, so that one long list of a word does not name a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
_WORDS = regex.compile(rf"(?V1)([{_UNSPACED}]+)|[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]+(?:['’]\p{{L}}+)*")
_LETTER = regex.compile(r"\p{L}")
_LONGEST = 32


def words_of(text: str) -> Iterator[str]:
    """The words of a text in any language, case-folded.

    A word is a run of letters, marks, digits and `_` of two or more signs with a letter among them. Scripts that write
    no spaces (Han, Kana, Thai, ...) give overlapping pairs of signs instead.

    >>> list(words_of("Don't split naïve_words, 42 times: 机器学习 x"))
    ["don't", 'split', 'naïve_words', 'times', '机器', '器学', '学习']
    """
    for found in _WORDS.finditer(text):
        word = found[0]
        if found[1]:
            yield from (word[at : at + 2] for at in range(max(len(word) - 1, 1)))
        elif 2 <= len(word) <= _LONGEST and _LETTER.search(word):
            yield word.casefold()


def class_tf_idf(clusters: np.ndarray, words: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The weight of each word in each cluster: float64, one for each triple given.

        weight = count / Σ counts of the cluster · ln(1 + A / Σ counts of the word),  A = mean Σ counts of a cluster

    Args:
        clusters, words: whole numbers that name them; a pair appears once.
        counts: how often the word is in the cluster, above 0.

    >>> class_tf_idf(np.array([0, 0, 1]), np.array([7, 8, 8]), np.array([2, 2, 4])).round(3)
    array([0.549, 0.255, 0.511])
    """
    if not len(counts):
        return np.zeros(0)
    _, cluster = np.unique(clusters, return_inverse=True)
    _, word = np.unique(words, return_inverse=True)
    by_cluster = np.bincount(cluster, weights=counts)
    by_word = np.bincount(word, weights=counts)
    return counts / by_cluster[cluster] * np.log1p(by_cluster.mean() / by_word[word])
