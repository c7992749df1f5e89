"""Water-filling: closed forms, limits, UniMax, brute force, and refusals that say what would do."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.errors import ConfigError, PlanInfeasible
from dataforge.plans.allocation import draws_per_cluster, integer_weights, water_fill

SIZES = st.lists(st.integers(0, 60), min_size=1, max_size=12)
PAPER = [5000, 1000, 300, 80, 20, 5]


def unimax(sizes: list[int], num_draws: int, max_repeats: int) -> list[Fraction]:
    """UniMax, arXiv:2304.09151: smallest first, each takes an equal share of what is left, or its cap."""
    shares, left = [Fraction(0)] * len(sizes), Fraction(num_draws)
    waiting = sorted((size, i) for i, size in enumerate(sizes) if size)
    for place, (size, i) in enumerate(waiting):
        shares[i] = min(Fraction(max_repeats * size), left / (len(waiting) - place))
        left -= shares[i]
    return shares


def bisected_level(budget: int, weights: list[int], floors: list[int], caps: list[int]) -> float:
    """The level by brute bisection in floats."""
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        total = sum(min(max(middle * w, f), c) for w, f, c in zip(weights, floors, caps, strict=True))
        low, high = (middle, high) if total < budget else (low, middle)
    return high


def test_the_worked_example_of_the_paper_notes() -> None:
    assert draws_per_cluster(PAPER, 12_000, 4).tolist() == [6380, 4000, 1200, 320, 80, 20]


def test_left_over_draws_go_to_the_lowest_ids() -> None:
    assert draws_per_cluster([2, 3, 10], num_draws=24, max_repeats=3).tolist() == [6, 9, 9]
    assert draws_per_cluster([9, 9, 9, 9], num_draws=6, max_repeats=1).tolist() == [2, 2, 1, 1]
    assert draws_per_cluster([0, 9, 0, 9, 9], num_draws=5, max_repeats=1).tolist() == [0, 2, 0, 2, 1]


@pytest.mark.parametrize("num_draws", [6, 600, 6000])
def test_without_a_cap_every_cluster_gives_the_same(num_draws: int) -> None:
    assert set(draws_per_cluster(PAPER, num_draws, None).tolist()) == {num_draws // 6}


@pytest.mark.parametrize("max_repeats", [1, 2, 7])
def test_at_the_full_budget_every_document_is_drawn_max_repeats_times(max_repeats: int) -> None:
    draws = draws_per_cluster(PAPER, max_repeats * sum(PAPER), max_repeats)
    assert draws.tolist() == [max_repeats * size for size in PAPER]


def test_one_cluster_takes_the_whole_budget() -> None:
    assert draws_per_cluster([7], 20, 3).tolist() == [20]
    assert draws_per_cluster([0, 1, 0], 3, 3).tolist() == [0, 3, 0]


@settings(max_examples=200, deadline=None)
@given(sizes=SIZES, max_repeats=st.integers(1, 5), data=st.data())
def test_draws_sum_to_the_budget_and_respect_the_clip(sizes: list[int], max_repeats: int, data: st.DataObject) -> None:
    num_draws = data.draw(st.integers(0, max_repeats * sum(sizes)))
    draws = draws_per_cluster(sizes, num_draws, max_repeats)
    assert draws.sum() == num_draws
    assert (draws >= 0).all()
    assert (draws <= max_repeats * np.array(sizes)).all()


@settings(max_examples=200, deadline=None)
@given(sizes=SIZES, max_repeats=st.integers(1, 5), data=st.data())
def test_it_is_unimax_to_within_a_document(sizes: list[int], max_repeats: int, data: st.DataObject) -> None:
    num_draws = data.draw(st.integers(0, max_repeats * sum(sizes)))
    draws = draws_per_cluster(sizes, num_draws, max_repeats)
    assert all(abs(a - b) < 1 for a, b in zip(draws.tolist(), unimax(sizes, num_draws, max_repeats), strict=True))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), scale=st.sampled_from([1, 10**6, 2**40]), num=st.integers(1, 8))
def test_shares_are_the_clamped_level_rounded_by_less_than_one(data: st.DataObject, scale: int, num: int) -> None:
    weights = [
        w * scale + (w > 0) * (i % 2)
        for i, w in enumerate(data.draw(st.lists(st.integers(0, 5), min_size=num, max_size=num)))
    ]
    floors = data.draw(st.lists(st.integers(0, 5), min_size=num, max_size=num))
    caps = [f + (data.draw(st.integers(0, 9)) if w else 0) for f, w in zip(floors, weights, strict=True)]
    budget = data.draw(st.integers(sum(floors), sum(caps)))
    found = water_fill(budget, np.array(weights), caps_C=np.array(caps), floors_C=np.array(floors))
    exact: list[Any] = [min(max(found.level * w, f), c) for w, f, c in zip(weights, floors, caps, strict=True)]
    assert sum(exact) == budget == found.shares_C.sum()
    assert all(abs(a - b) < 1 for a, b in zip(found.shares_C.tolist(), exact, strict=True))
    assert all(f <= a <= c for a, f, c in zip(found.shares_C.tolist(), floors, caps, strict=True))
    brute = bisected_level(budget, weights, floors, caps)
    rounded = [min(max(brute * w, f), c) for w, f, c in zip(weights, floors, caps, strict=True)]
    assert all(abs(a - b) < 1 + 1e-6 for a, b in zip(found.shares_C.tolist(), rounded, strict=True))


@settings(max_examples=100, deadline=None)
@given(sizes=SIZES, max_repeats=st.integers(1, 4), data=st.data())
def test_relabelling_clusters_moves_at_most_the_left_over_draws(
    sizes: list[int], max_repeats: int, data: st.DataObject
) -> None:
    num_draws = data.draw(st.integers(0, max_repeats * sum(sizes)))
    order = data.draw(st.permutations(range(len(sizes))))
    plain = draws_per_cluster(sizes, num_draws, max_repeats)
    moved = draws_per_cluster([sizes[i] for i in order], num_draws, max_repeats)
    assert (np.abs(plain[list(order)] - moved) <= 1).all()
    assert sorted(plain) == sorted(moved)


def test_numbers_past_64_bits_in_between_stay_exact() -> None:
    sizes = np.array([10**14, 3 * 10**14, 7], dtype=np.int64)
    draws = draws_per_cluster(sizes, 2 * 10**14, 1, weights_C=sizes)
    total = int(sizes.sum())
    assert draws.sum() == 2 * 10**14
    assert all(abs(d - Fraction(2 * 10**14 * int(n), total)) < 1 for d, n in zip(draws.tolist(), sizes, strict=True))


def test_a_thousand_steps_of_zipf_sizes_keep_to_their_caps() -> None:
    sizes = (10**6 / np.arange(1, 3001)).astype(np.int64)
    caps = 4 * sizes
    for num_draws in np.linspace(1, int(caps.sum()), 97).astype(int).tolist():
        draws = draws_per_cluster(sizes, num_draws, 4)
        free = draws < caps
        assert draws.sum() == num_draws
        assert (draws <= caps).all()
        assert not free.any() or int(draws[free].max()) - int(draws[free].min()) <= 1
        assert not free.any() or draws[~free].max(initial=0) <= draws[free].max() + 1


@pytest.mark.parametrize(
    ("options", "what", "hint"),
    [
        ({}, "plan needs 46 draws, but 15 documents at max_repeats=3 allow 45", "to 4 or lower `num_draws` to 45"),
        ({"num_draws": 46_000}, "plan needs 46,000 draws, but 15 documents", "raise `max_repeats` to 3067 or"),
        ({"ceilings_C": [9, 9, 9]}, "under the given ceilings at max_repeats=3 allow 24", "raise the ceilings or"),
        ({"ceilings_C": [99, 9, 30]}, "at max_repeats=3 allow 45", "raise `max_repeats` to 4 or lower"),
        ({"weights_C": [1, 0, 1]}, "but 12 documents at max_repeats=3 allow 36", "to 4 or lower `num_draws` to 36"),
        ({"floors_C": [7, 0, 0], "num_draws": 9}, "cluster 0 has a floor of 7 draws, its cap is 6", "floor to 6"),
        ({"floors_C": [5, 5, 5], "num_draws": 9}, "floors ask for 15 draws, but the plan has 9", "`num_draws` to 15"),
        ({"max_repeats": None, "ceilings_C": [9, 9, 9]}, "the given ceilings allow 27", "lower `num_draws` to 27"),
    ],
)
def test_infeasible_budgets_are_refused_with_what_would_do(options: dict, what: str, hint: str) -> None:
    with pytest.raises(PlanInfeasible) as refused:
        draws_per_cluster([2, 3, 10], **{"num_draws": 46, "max_repeats": 3, **options})
    assert what in refused.value.what
    assert hint in str(refused.value.hint)


def test_the_hint_of_a_refusal_is_feasible() -> None:
    with pytest.raises(PlanInfeasible) as refused:
        draws_per_cluster([2, 3, 10], 100, 3, ceilings_C=[9, 9, 99])
    repeats = int(str(refused.value.hint).split("to ")[1].split(" ")[0])
    assert draws_per_cluster([2, 3, 10], 100, repeats, ceilings_C=[9, 9, 99]).sum() == 100
    with pytest.raises(PlanInfeasible):
        draws_per_cluster([2, 3, 10], 100, repeats - 1, ceilings_C=[9, 9, 99])


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ([1.5, 2], {}),
        ([[1, 2]], {}),
        ([-1, 5], {}),
        ([1, 5], {"max_repeats": 0}),
        ([1, 5], {"num_draws": -1}),
        ([1, 5], {"floors_C": [1]}),
        ([1, 5], {"ceilings_C": [-1, 2]}),
        ([1, 5], {"weights_C": [1.0, float("nan")]}),
        ([1, 5], {"weights_C": [1, -1]}),
        ([1, 5], {"weights_C": [0, 0]}),
    ],
)
def test_settings_that_make_no_sense_are_refused(sizes: list, options: dict) -> None:
    with pytest.raises(ConfigError):
        draws_per_cluster(sizes, **{"num_draws": 3, "max_repeats": 2, **options})


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20).filter(lambda ws: max(ws) > 1e-3))
def test_float_weights_become_integers_in_the_same_ratios(weights: list[float]) -> None:
    made = integer_weights(weights)
    assert ((made > 0) == (np.array(weights) > 0)).all()
    assert np.allclose(made / made.max(), np.array(weights) / max(weights), atol=2.0**-39)
