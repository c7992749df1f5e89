"""Byte-level BPE in plain Python, recounted at every step: the truth that native/ is held to.

Ids while training are places in E: 0..255 the bytes, then the special tokens, then the merges in order of creation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Event = tuple[str, int, int, int]
"""("merge", left, right, frequency), ("flag", token, -1, frequency left) or ("return", token, -1, frequency)."""


@dataclass
class Trained:
    """What training gives: merges in order, which tokens are scaffolds, and how often each token is left."""

    num_special_tokens: int
    merges: list[tuple[int, int]] = field(default_factory=list)
    scaffolds: set[int] = field(default_factory=set)
    frequency: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def num_pinned(self) -> int:
        """Bytes and special tokens: always in the vocabulary."""
        return 256 + self.num_special_tokens

    @property
    def num_tokens(self) -> int:
        """Tokens the model sees: all of E but the scaffolds."""
        return self.num_pinned + len(self.merges) - len(self.scaffolds)

    def spelling(self, token: int) -> bytes:
        """The bytes of a token (not of a special one)."""
        if token < 256:
            return bytes([token])
        left, right = self.merges[token - self.num_pinned]
        return self.spelling(left) + self.spelling(right)


def train_bpe(words: Mapping[bytes, int], vocab_size: int, num_special_tokens: int = 0) -> Trained:
    """Merge the most frequent pair until there are `vocab_size` tokens or no pair is left.

    Ties go to the lower left id, then the lower right id.

    >>> trained = train_bpe({b"ab": 9, b"cd": 7, b"bcd": 5}, vocab_size=259)
    >>> [trained.spelling(token) for token in range(256, 259)]
    [b'cd', b'ab', b'bcd']
    """
    trained = Trained(num_special_tokens)
    sequences = {word: list(word) for word in words}
    while trained.num_tokens < vocab_size:
        pairs = count_pairs(sequences, words)
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        trained.events.append(("merge", left, right, pairs[left, right]))
        token = trained.num_pinned + len(trained.merges)
        trained.merges.append((left, right))
        sequences = {word: merge(sequence, left, right, token) for word, sequence in sequences.items()}
    trained.frequency = count_tokens(sequences, words, trained)
    return trained


def count_pairs(sequences: Mapping[bytes, Sequence[int]], words: Mapping[bytes, int]) -> Counter[tuple[int, int]]:
    """How often each pair of neighbours occurs, overlapping occurrences included."""
    pairs: Counter[tuple[int, int]] = Counter()
    for word, sequence in sequences.items():
        for pair in pairwise(sequence):
            pairs[pair] += words[word]
    return pairs


def count_tokens(sequences: Mapping[bytes, Sequence[int]], words: Mapping[bytes, int], trained: Trained) -> list[int]:
    """How often each id of E occurs."""
    frequency = [0] * (trained.num_pinned + len(trained.merges))
    for word, sequence in sequences.items():
        for token in sequence:
            frequency[token] += words[word]
    return frequency


def merge(sequence: Sequence[int], left: int, right: int, token: int) -> list[int]:
    """The sequence with the pair replaced, left to right, without overlap.

    >>> merge([1, 1, 1, 2], 1, 1, 9)
    [9, 1, 2]
    """
    merged: list[int] = []
    for each in sequence:
        if each == right and merged and merged[-1] == left:
            merged[-1] = token
        else:
            merged.append(each)
    return merged


def encode_by_rank(
    word: bytes, byte_ids: Sequence[int], merges: Mapping[tuple[int, int], tuple[int, int]]
) -> list[int]:
    """Ids of one pre-token: again and again the pair of lowest rank, the leftmost among equals, is merged.

    Args:
        word: the pre-token's bytes.
        byte_ids: id of each byte.
        merges: (left, right) -> (rank, id of the merged token).
    """
    ids = [byte_ids[byte] for byte in word]
    while True:
        ranked = [(merges[pair][0], i) for i, pair in enumerate(pairwise(ids)) if pair in merges]
        if not ranked:
            return ids
        _, i = min(ranked)
        ids[i : i + 2] = [merges[ids[i], ids[i + 1]][1]]
