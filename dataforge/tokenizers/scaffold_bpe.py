"""Scaffold-BPE in plain Python: the truth that native/ is held to.  Lian et al. 2024, arXiv:2404.17808, section 3.

BPE keeps every token it had to build on the way to a longer one. Here a token whose remaining frequency falls below
that of the queue's head, the price of a place in the vocabulary, becomes a scaffold: still used to build, no longer
seen by the model; and when the price falls to its frequency, the queue hands it back.

What the paper leaves open, and is decided here: bytes and special tokens are never flagged;
ties go to a return before a merge, then to the lower left id, then the lower right id; a scaffold's key in the queue
follows its frequency; a token with frequency 0 never returns; an empty queue has price 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dataforge.tokenizers.bpe import Trained, count_pairs, count_tokens, merge

_RETURN, _MERGE = 0, 1


def train_scaffold_bpe(words: Mapping[bytes, int], vocab_size: int, num_special_tokens: int = 0) -> Trained:
    """Merge, flag and return until `vocab_size` tokens are not scaffolds, or the queue is empty.

    >>> words = {b"abc": 10, b"ab": 6, b"de": 8, b"fgh": 5, b"fg": 1, b"ij": 3}
    >>> trained = train_scaffold_bpe(words, vocab_size=256 + 5)
    >>> [trained.spelling(token) for token in range(256, 262)], [trained.spelling(t) for t in trained.scaffolds]
    ([b'ab', b'abc', b'de', b'fg', b'fgh', b'ij'], [b'fg'])
    """
    trained = Trained(num_special_tokens)
    sequences = {word: list(word) for word in words}
    while trained.num_tokens < vocab_size:
        head = _head(sequences, words, trained)
        if head is None:
            break
        frequency, kind, left, right = head
        if kind == _RETURN:
            trained.scaffolds.remove(left)
            trained.events.append(("return", left, -1, frequency))
            continue
        trained.events.append(("merge", left, right, frequency))
        token = trained.num_pinned + len(trained.merges)
        trained.merges.append((left, right))
        sequences = {word: merge(sequence, left, right, token) for word, sequence in sequences.items()}
        left_over = count_tokens(sequences, words, trained)
        next_head = _head(sequences, words, trained)
        price = next_head[0] if next_head else 0
        for child in dict.fromkeys((left, right)):
            if child >= trained.num_pinned and child not in trained.scaffolds and left_over[child] < price:
                trained.scaffolds.add(child)
                trained.events.append(("flag", child, -1, left_over[child]))
    trained.frequency = count_tokens(sequences, words, trained)
    return trained


def _head(
    sequences: Mapping[bytes, Sequence[int]], words: Mapping[bytes, int], trained: Trained
) -> tuple[int, int, int, int] | None:
    """The head of the queue: (frequency, kind, left or token, right), or None when the queue is empty."""
    tokens = count_tokens(sequences, words, trained)
    queue = [(-tokens[token], _RETURN, token, -1) for token in trained.scaffolds if tokens[token] > 0]
    queue += [(-count, _MERGE, left, right) for (left, right), count in count_pairs(sequences, words).items()]
    if not queue:
        return None
    negated, kind, left, right = min(queue)
    return -negated, kind, left, right


def demolitions(merges: Sequence[tuple[int, int, int]], scaffolds: set[int]) -> dict[int, list[int]]:
    """What each token gives way to: itself, or for a scaffold its parts, recursively.

    Args:
        merges: (left, right, id) in order of creation.
        scaffolds: ids that must not be in the output.
    """
    parts: dict[int, list[int]] = {}
    for left, right, token in merges:
        parts[token] = parts.get(left, [left]) + parts.get(right, [right]) if token in scaffolds else [token]
    return parts
