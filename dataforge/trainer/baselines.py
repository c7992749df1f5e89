"""What a trained model has to beat: unigram and interpolated bigram models of the very rows it was trained on.

Both are mixtures of relative frequencies and a wider model, so every distribution sums to 1. The mixture's weights are
found by expectation maximisation on leaving-one-out frequencies (deleted interpolation: each token is predicted from
the counts of all the others), one weight for each power of two of the context's count. Nothing is tuned by hand and
nothing of the held-out documents is looked at.

Source: Jelinek and Mercer 1980, deleted interpolation; leaving-one-out as in Ney, Essen and Kneser 1994.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dataforge.errors import NothingToDo

# V vocabulary  M distinct bigrams  C powers of two

_ROUNDS = 60
_MOST = 1 - 1e-9
"""Largest weight of the narrower model: whatever has not been seen must stay possible."""


@dataclass(frozen=True)
class Unigram:
    """`weight * count / total + (1 - weight) / V`."""

    counts_V: np.ndarray
    weight: float

    def probabilities(self) -> np.ndarray:
        """float64 [V], summing to 1."""
        return self.weight * self.counts_V / self.counts_V.sum() + (1 - self.weight) / len(self.counts_V)

    def bits(self, context: np.ndarray, label: np.ndarray) -> np.ndarray:
        """-log2 of each label's probability; the context is not looked at."""
        return -np.log2(self.probabilities()[label])


@dataclass(frozen=True)
class Bigram:
    """`weight * count(context, label) / count(context) + (1 - weight) * unigram(label)`."""

    unigram: Unigram
    pairs_M: np.ndarray
    """context * V + label of each bigram seen, ascending."""
    counts_M: np.ndarray
    context_counts_V: np.ndarray
    weights_C: np.ndarray
    """The weight of contexts that were seen 2^c to 2^(c+1) - 1 times."""

    def bits(self, context: np.ndarray, label: np.ndarray) -> np.ndarray:
        """-log2 of each label's probability after its context."""
        pair = np.asarray(context, dtype=np.int64) * len(self.context_counts_V) + label
        place = np.minimum(np.searchsorted(self.pairs_M, pair), len(self.pairs_M) - 1)
        count = np.where(self.pairs_M[place] == pair, self.counts_M[place], 0)
        seen = self.context_counts_V[context]
        weight = np.where(seen > 0, self.weights_C[_power(seen)], 0.0)
        return -np.log2(weight * count / np.maximum(seen, 1) + (1 - weight) * self.unigram.probabilities()[label])


def fit_baselines(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], vocab_size: int, *, eos_id: int | None
) -> tuple[Unigram, Bigram]:
    """The unigram and bigram model of the labels of some rows.

    Args:
        batches: (token ids [B, L + 1], segments int64 [n, 4]) of each step; every label counts once.
        vocab_size: V.
        eos_id: the id after every document. Without one, a document's first token is not predicted from the document
            before it, here as in evaluation.
    Raises:
        NothingToDo: there is no row.
    """
    labels_V = np.zeros(vocab_size, dtype=np.int64)
    pairs, counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    for token_ids, segments in batches:
        ids = np.asarray(token_ids, dtype=np.int64)
        labels_V += np.bincount(ids[:, 1:].reshape(-1), minlength=vocab_size)
        pair = ids[:, :-1] * vocab_size + ids[:, 1:]
        if eos_id is None:
            pair = pair[~_opens_document(segments, ids.shape)]
        fresh, fresh_counts = np.unique(pair, return_counts=True)
        pairs, counts = _add(pairs, counts, fresh, fresh_counts)
    if labels_V.sum() < 2:
        raise NothingToDo("there are no rows to fit the baselines on", hint="train at least one step")
    unigram = Unigram(labels_V, _unigram_weight(labels_V))
    contexts_V = np.bincount(pairs // vocab_size, weights=counts, minlength=vocab_size).astype(np.int64)
    weights_C = _bigram_weights(unigram, pairs, counts, contexts_V)
    return unigram, Bigram(unigram, pairs, counts, contexts_V, weights_C)


def _opens_document(segments: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """bool [B, L]: labels that are another segment's first token."""
    segment = np.repeat(np.arange(len(segments)), np.asarray(segments)[:, 3]).reshape(shape)
    return segment[:, 1:] != segment[:, :-1]


def _add(
    keys: np.ndarray, counts: np.ndarray, more_keys: np.ndarray, more_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    merged, place = np.unique(np.concatenate([keys, more_keys]), return_inverse=True)
    total = np.zeros(len(merged), dtype=np.int64)
    total[place[: len(keys)]] += counts
    total[place[len(keys) :]] += more_counts
    return merged, total


def _unigram_weight(counts_V: np.ndarray) -> float:
    total = counts_V.sum()
    left_out = np.maximum(counts_V - 1, 0) / (total - 1)
    weight = 0.5
    for _ in range(_ROUNDS):
        share = weight * left_out / (weight * left_out + (1 - weight) / len(counts_V))
        weight = min(float((counts_V * share).sum() / total), _MOST)
    return weight


def _bigram_weights(unigram: Unigram, pairs: np.ndarray, counts: np.ndarray, contexts_V: np.ndarray) -> np.ndarray:
    vocab_size, labels_V = len(contexts_V), unigram.counts_V
    context, label = pairs // vocab_size, pairs % vocab_size
    seen = contexts_V[context]
    left_out = (counts - 1) / np.maximum(seen - 1, 1)
    narrower = unigram.weight * np.maximum(labels_V[label] - 1, 0) / (labels_V.sum() - 1)
    narrower = narrower + (1 - unigram.weight) / vocab_size
    power = _power(seen)
    size = int(_power(np.array([max(1, int(contexts_V.max(initial=0)))]))[0]) + 1
    mass_C = np.bincount(power, weights=counts, minlength=size)
    weights_C = np.full(size, 0.5)
    for _ in range(_ROUNDS):
        weight = weights_C[power]
        share = weight * left_out / (weight * left_out + (1 - weight) * narrower)
        told = np.bincount(power, weights=counts * share, minlength=size)
        weights_C = np.minimum(np.divide(told, mass_C, out=np.zeros(size), where=mass_C > 0), _MOST)
    return weights_C


def _power(counts: np.ndarray) -> np.ndarray:
    """floor(log2(count)), exact; 0 for a count of 0."""
    return np.maximum(np.frexp(np.maximum(counts, 1).astype(np.float64))[1] - 1, 0)
