"""ClusterClip: every cluster equally often, until its documents were repeated often enough.  Shao et al. 2024,
"Balanced Data Sampling for Language Model Training with Clustering", arXiv:2402.14526, figure 1.

Rare text is lifted by the equal shares; the clip keeps small clusters from being memorised. The share of a clipped
cluster goes to those that remain. Departures: exact stratified counts, not random draws (`dataforge.plans.order`); the
paper does not state its clip value, so `max_repeats` is a setting (4 is the number of epochs that cost little in
arXiv:2305.16264).

The `stationary` schedule holds the final mixture from start to end: that is UniMax (Chung et al. 2023,
arXiv:2304.09151) with clusters for languages, known by the name `unimax`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataforge.plans.samplers.sampler import Mixture, Schedule, samplers


@samplers.register("clusterclip")
def clusterclip(sizes_C: NDArray[np.int64], *, max_repeats: int | None, schedule: Schedule | None = None) -> Mixture:
    """Equal weights, clipped at `max_repeats` draws of a document; progressive unless told otherwise."""
    return Mixture(weights_C=_equal(sizes_C), max_repeats=max_repeats, schedule=schedule or "progressive")


@samplers.register("unimax")
def unimax(sizes_C: NDArray[np.int64], *, max_repeats: int | None, schedule: Schedule | None = None) -> Mixture:
    """The same allocation as ClusterClip, with one mixture for the whole run unless told otherwise."""
    return Mixture(weights_C=_equal(sizes_C), max_repeats=max_repeats, schedule=schedule or "stationary")


def _equal(sizes_C: NDArray[np.int64]) -> NDArray[Any]:
    return np.ones(len(sizes_C), np.int64)
