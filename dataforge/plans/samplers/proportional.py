"""Proportional: every document equally often, so clusters weigh what they hold.  The baseline "random" of
arXiv:2402.14526, and known by that name too.

Departure: shares are exact over the run and over each of its blocks, where random draws would scatter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataforge.plans.samplers.sampler import Mixture, Schedule, samplers


@samplers.register("random")
@samplers.register("proportional")
def proportional(sizes_C: NDArray[np.int64], *, max_repeats: int | None, schedule: Schedule | None = None) -> Mixture:
    """Weights are the sizes. The cap binds all clusters at once: it only limits the budget."""
    return Mixture(weights_C=sizes_C, max_repeats=max_repeats, schedule=schedule or "stationary")
