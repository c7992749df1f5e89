"""ClusterClip, arXiv:2402.14526, figure 1, and its likeness to UniMax, arXiv:2304.09151."""

from __future__ import annotations

import numpy as np

from dataforge.plans import SamplingPlan


def test_the_figure_of_three_clusters_is_drawn_for_any_seed() -> None:
    """A, C and B hold 5, 3 and 1 documents, a batch draws three, a document may be drawn twice.

    Batches 1 and 2 take one document of each; then B's only document has been drawn twice, B is gone, and batches 3 and
    4 hold A and C alone.
    """
    for seed in range(50):
        plan = SamplingPlan.build([5, 3, 1], num_draws=12, max_repeats=2, seed=seed)
        batches = plan.at(np.arange(12))[0].reshape(4, 3)
        assert sorted(batches[0]) == sorted(batches[1]) == [0, 1, 2]
        assert 2 not in batches[2:]
        assert set(batches[2]) == set(batches[3]) == {0, 1}


def test_rare_clusters_are_lifted_and_then_clipped() -> None:
    """Against proportional sampling the small clusters gain, and no document passes the cap that uniform breaks."""
    sizes = [8000, 900, 90, 10]
    clip, uniform, random = (
        SamplingPlan.build(sizes, sampler=name, num_draws=9000, max_repeats=4, seed=0)
        for name in ("clusterclip", "uniform", "random")
    )
    assert (clip.draws_per_cluster[1:] > random.draws_per_cluster[1:]).all()
    assert clip.at(np.arange(9000))[2].max() == 3
    assert uniform.at(np.arange(9000))[2].max() == 224
    assert random.draws_per_cluster.tolist() == sizes


def test_the_final_mixture_is_that_of_unimax() -> None:
    """Smallest first, each takes an equal share of what is left, or its cap: the level that ClusterClip ends at."""
    sizes, left, shares = [5000, 1000, 300, 80, 20, 5], 12_000.0, {}
    for place, size in enumerate(sorted(sizes)):
        shares[size] = min(4 * size, left / (len(sizes) - place))
        left -= shares[size]
    plan = SamplingPlan.build(sizes, num_draws=12_000, max_repeats=4, seed=0)
    assert plan.draws_per_cluster.tolist() == [shares[size] for size in sizes] == [6380, 4000, 1200, 320, 80, 20]
