import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.errors import NothingToDo
from dataforge.trainer.baselines import _power, fit_baselines

V = 7


def whole_rows(rows):
    """Rows, and the table that says each is one document."""
    return np.array(rows), np.array([[i, i, 0, len(row)] for i, row in enumerate(rows)])


rows_of_tokens = st.integers(2, 8).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, V - 1), min_size=width, max_size=width), min_size=2, max_size=12)
)


@settings(deadline=None)
@given(rows_of_tokens)
def test_every_distribution_sums_to_one_and_leaves_nothing_impossible(rows):
    unigram, bigram = fit_baselines([whole_rows(rows)], V, eos_id=0)
    labels = np.arange(V)
    assert unigram.probabilities().sum() == pytest.approx(1.0)
    for context in range(V):
        p = 2.0 ** -bigram.bits(np.full(V, context), labels)
        assert p.sum() == pytest.approx(1.0)
        assert (p > 0).all()


@settings(deadline=None)
@given(rows_of_tokens)
def test_bits_are_those_of_counts_taken_one_by_one(rows):
    unigram, bigram = fit_baselines([whole_rows(rows)], V, eos_id=0)
    pairs = [(a, b) for row in rows for a, b in itertools.pairwise(row)]
    for context in range(V):
        for label in range(V):
            wide = unigram.weight * sum(b == label for _, b in pairs) / len(pairs) + (1 - unigram.weight) / V
            seen = sum(a == context for a, _ in pairs)
            p = wide
            if seen:
                weight = bigram.weights_C[int(np.floor(np.log2(seen)))]
                p = weight * pairs.count((context, label)) / seen + (1 - weight) * wide
            got = bigram.bits(np.array([context]), np.array([label]))[0]
            assert got == pytest.approx(-np.log2(p), rel=1e-9)
            assert unigram.bits(np.array([context]), np.array([label]))[0] == pytest.approx(-np.log2(wide), rel=1e-9)


def left_out_bits(rows, weight_of, unigram_weight):
    """What all tokens cost if each is predicted from the counts of the others."""
    pairs = [(a, b) for row in rows for a, b in itertools.pairwise(row)]
    total = 0.0
    for place, (context, label) in enumerate(pairs):
        others = pairs[:place] + pairs[place + 1 :]
        wide = unigram_weight * sum(b == label for _, b in others) / len(others) + (1 - unigram_weight) / V
        seen = sum(a == context for a, _ in others)
        share = others.count((context, label)) / seen if seen else 0.0
        weight = weight_of(seen + 1)
        total -= np.log2(weight * share + (1 - weight) * wide)
    return total


def test_weights_are_the_best_for_tokens_predicted_from_all_the_others():
    generator = np.random.default_rng(0)
    rows = generator.choice(V, size=(30, 9), p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    rows[:, 1::2] = (rows[:, 0::2][:, :4] + 1) % V  # half the pairs can be told from their context
    rows = rows.tolist()
    unigram, bigram = fit_baselines([whole_rows(rows)], V, eos_id=0)
    weights = bigram.weights_C

    def cost(changed, power):
        return left_out_bits(
            rows, lambda seen: changed if int(np.log2(seen)) == power else weights[int(np.log2(seen))], unigram.weight
        )

    for power, weight in enumerate(weights):
        best = cost(weight, power)
        for other in (max(0.0, weight - 0.05), min(1 - 1e-6, weight + 0.05)):
            assert cost(other, power) >= best - 1e-3


def test_counts_add_up_over_batches():
    rows = np.random.default_rng(1).integers(0, V, size=(12, 6))
    together = fit_baselines([whole_rows(rows)], V, eos_id=0)
    apart = fit_baselines([whole_rows(rows[:5]), whole_rows(rows[5:6]), whole_rows(rows[6:])], V, eos_id=0)
    assert np.array_equal(together[1].pairs_M, apart[1].pairs_M)
    assert np.array_equal(together[1].counts_M, apart[1].counts_M)
    assert np.array_equal(together[0].counts_V, apart[0].counts_V)
    assert np.array_equal(together[1].weights_C, apart[1].weights_C)


def test_without_an_end_of_text_no_pair_crosses_documents():
    ids, segments = np.array([[1, 2, 3, 4]]), np.array([[0, 0, 0, 2], [0, 1, 0, 2]])
    _, inside = fit_baselines([(ids, segments)], V, eos_id=None)
    _, through = fit_baselines([(ids, segments)], V, eos_id=0)
    assert inside.pairs_M.tolist() == [1 * V + 2, 3 * V + 4]
    assert through.pairs_M.tolist() == [1 * V + 2, 2 * V + 3, 3 * V + 4]


def test_powers_of_two_are_exact():
    counts = np.array([0, 1, 2, 3, 4, 2**31 - 1, 2**31, 2**52 - 1, 2**52])
    assert _power(counts).tolist() == [0, 0, 1, 1, 2, 30, 31, 51, 52]


def test_no_rows_are_an_error():
    with pytest.raises(NothingToDo):
        fit_baselines([], V, eos_id=0)
