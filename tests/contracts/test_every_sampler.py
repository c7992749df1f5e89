"""What holds for every registered sampler: a new one is covered on arrival."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.errors import ConfigError, PlanInfeasible
from dataforge.plans import SamplingPlan, samplers
from dataforge.plans.samplers import mixture_of

SIZES = st.lists(st.integers(0, 300), min_size=1, max_size=12).filter(any)


@pytest.mark.parametrize("name", samplers.names())
@settings(max_examples=25, deadline=None)
@given(
    sizes=SIZES, epochs=st.sampled_from([0.5, 1.0, 2.5]), schedule=st.sampled_from([None, "progressive", "stationary"])
)
def test_every_sampler_fills_its_budget_within_its_caps(
    name: str, sizes: list[int], epochs: float, schedule: str | None
) -> None:
    num_draws = max(1, round(epochs * sum(sizes)))
    plan = SamplingPlan.build(sizes, sampler=name, num_draws=num_draws, max_repeats=4, schedule=schedule, seed=1)
    cluster, document, epoch = plan.at(np.arange(num_draws))
    assert plan.num_draws == plan.draws_per_cluster.sum() == num_draws
    assert np.array_equal(np.bincount(cluster, minlength=len(sizes)), plan.draws_per_cluster)
    assert (plan.draws_per_cluster[np.array(sizes) == 0] == 0).all()
    assert ((document >= 0) & (document < plan.sizes_C[cluster])).all()
    assert len({*zip(cluster.tolist(), document.tolist(), epoch.tolist(), strict=True)}) == num_draws
    if plan.max_repeats is not None:
        assert epoch.max() < plan.max_repeats
        assert (plan.draws_per_cluster <= plan.max_repeats * plan.sizes_C).all()


@pytest.mark.parametrize("name", samplers.names())
@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=12))
def test_every_sampler_asks_for_weights_that_never_fall_with_size(name: str, sizes: list[int]) -> None:
    sizes_C = np.sort(np.array(sizes))
    mixture = mixture_of(name, sizes_C, max_repeats=3, schedule=None, options={})
    assert mixture.weights_C.shape == sizes_C.shape
    assert (mixture.weights_C > 0).all()
    assert (np.diff(mixture.weights_C) >= 0).all()
    assert mixture.schedule in ("progressive", "stationary")


@pytest.mark.parametrize("name", samplers.names())
def test_every_sampler_gives_each_seed_its_order_and_the_same_allocation(name: str) -> None:
    plans = [SamplingPlan.build([500, 90, 7], sampler=name, num_draws=900, seed=seed) for seed in (0, 1)]
    assert np.array_equal(plans[0].draws_per_cluster, plans[1].draws_per_cluster)
    assert not np.array_equal(plans[0].at(np.arange(900))[1], plans[1].at(np.arange(900))[1])


@pytest.mark.parametrize("name", samplers.names())
@pytest.mark.parametrize("schedule", ["progressive", "stationary"])
def test_every_sampler_saves_and_opens_to_the_same_plan(name: str, schedule: str, tmp_path: Path) -> None:
    plan = SamplingPlan.build([500, 90, 0, 7], sampler=name, num_draws=900, schedule=schedule, seed=5)
    plan.save(tmp_path)
    opened = SamplingPlan.open(tmp_path)
    for before, after in zip(plan.at(np.arange(900)), opened.at(np.arange(900)), strict=True):
        assert np.array_equal(before, after)
    assert opened.reason(17) == plan.reason(17)
    assert opened.preview().to_json() == plan.preview().to_json()
    opened.save(tmp_path)
    assert SamplingPlan.open(tmp_path).level == plan.level


@pytest.mark.parametrize("name", samplers.names())
def test_every_sampler_plans_a_budget_in_tokens(name: str) -> None:
    means = np.array([1000.0, 10.0, 250.0])
    plan = SamplingPlan.build([500, 90, 70], sampler=name, num_tokens=400_000, mean_tokens=means, seed=0)
    drawn = plan.draws_per_cluster * means
    assert abs(drawn.sum() - 400_000) <= means.sum() / 2  # each cluster is rounded to whole documents
    if plan.max_repeats is not None:
        assert (plan.draws_per_cluster <= plan.max_repeats * plan.sizes_C).all()


@pytest.mark.parametrize("name", samplers.names())
def test_every_sampler_refuses_what_it_does_not_know_and_what_cannot_be(name: str) -> None:
    with pytest.raises(ConfigError, match="has no option 'speed'"):
        SamplingPlan.build([5, 5], sampler=name, num_draws=5, seed=0, speed=3)
    with pytest.raises(ConfigError, match="no schedule is called 'weekly'"):
        SamplingPlan.build([5, 5], sampler=name, num_draws=5, seed=0, schedule="weekly")
    if SamplingPlan.build([5, 5], sampler=name, num_draws=5, seed=0).max_repeats is not None:
        with pytest.raises(PlanInfeasible, match="plan needs 41 draws, but 10 documents at max_repeats=4 allow 40"):
            SamplingPlan.build([5, 5], sampler=name, num_draws=41, seed=0)
