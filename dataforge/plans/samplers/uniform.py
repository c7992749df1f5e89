"""Uniform: every cluster 1/C of the run, however small it is.  The baseline "uniform" of arXiv:2402.14526.

It has no cap: a small cluster is repeated as often as its share asks. That is what the clip of `clusterclip` is
compared with, so `max_repeats` does not bind here; for equal shares under a cap use `unimax`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataforge.plans.samplers.sampler import Mixture, Schedule, samplers


@samplers.register("uniform")
def uniform(sizes_C: NDArray[np.int64], *, max_repeats: int | None, schedule: Schedule | None = None) -> Mixture:
    """Equal weights without a cap. As no cluster ever leaves, both schedules are one."""
    del max_repeats
    return Mixture(weights_C=np.ones(len(sizes_C), np.int64), max_repeats=None, schedule=schedule or "stationary")
