"""LBPE in plain Python: the truth that native/ is held to.  Lian et al. 2024, arXiv:2411.05504.

The vocabulary is BPE's; encoding takes long tokens first. From the length of the longest token downwards a window
slides over the units, and a window whose bytes are a token becomes that token, straight from the units: no shorter
token is formed on the way, and none can stand in the way.

What the paper leaves open, and is decided here: at equal length the leftmost window wins, length counts bytes, the
window stays inside a pre-token, and with a Scaffold-BPE vocabulary it sees the model's tokens only, not scaffolds.
"""

from __future__ import annotations

from collections.abc import Mapping


def encode_longest_first(word: bytes, vocabulary: Mapping[bytes, int]) -> list[int]:
    """Ids of one pre-token; every single byte must be in the vocabulary.

    >>> encode_longest_first(b"abcd", {b"a": 0, b"b": 1, b"c": 2, b"d": 3, b"cd": 4, b"ab": 5, b"bcd": 6})
    [0, 6]
    >>> encode_longest_first(b"aad", {b"a": 0, b"d": 1, b"ad": 2, b"aa": 3})
    [3, 1]
    """
    covered = [False] * len(word)
    starts: dict[int, bytes] = {}
    for length in range(min(len(word), max(map(len, vocabulary))), 0, -1):
        first = 0
        while first + length <= len(word):
            window = word[first : first + length]
            if window in vocabulary and not any(covered[first : first + length]):
                covered[first : first + length] = [True] * length
                starts[first] = window
                first += length
            else:
                first += 1
    return [vocabulary[starts[first]] for first in sorted(starts)]
