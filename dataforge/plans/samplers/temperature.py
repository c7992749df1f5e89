"""Temperature: shares proportional to size^alpha, between proportional (1) and equal (0).  The exponential smoothing of
multilingual pre-training (mBERT, arXiv:1810.04805, alpha 0.7; XLM-R, arXiv:1911.02116, 0.3).

Departure: `max_repeats` clips it, and what a clipped cluster cannot take is shared by weight. Without a cap, a low
alpha on a long tail silently means hundreds of epochs over the smallest clusters.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dataforge.errors import ConfigError
from dataforge.plans.samplers.sampler import Mixture, Schedule, samplers

_LN_2 = 0.6931471805599453  # written out: another function of the C library
_LOG_TERMS = 12
_EXP_TERMS = 16


@samplers.register("temperature")
def temperature(
    sizes_C: NDArray[np.int64], *, max_repeats: int | None, schedule: Schedule | None = None, alpha: float = 0.7
) -> Mixture:
    """Weights size^alpha, clipped at `max_repeats`; stationary unless told otherwise.

    Raises:
        ConfigError: alpha is not between 0 and 4.
    """
    if not 0 <= alpha <= 4:
        raise ConfigError(f"alpha must be between 0 and 4, got {alpha}", hint="1 is proportional, 0 is equal shares")
    return Mixture(weights_C=power(sizes_C, alpha), max_repeats=max_repeats, schedule=schedule or "stationary")


def power(sizes_C: NDArray[np.int64], alpha: float) -> NDArray[np.float64] | NDArray[np.int64]:
    """size^alpha, 0 for an empty cluster, bit for bit the same on any machine.

    C libraries differ in the last bit of `pow`, and a plan must not. Only float64 operations that IEEE 754 defines
    exactly are used, one at a time; the relative error stays below 10^-13.

    >>> power(np.array([0, 1, 16, 10_000]), 0.5).round(9)
    array([  0.,   1.,   4., 100.])
    """
    if alpha == 1:
        return sizes_C
    if alpha == 0:
        return (sizes_C > 0).astype(np.int64)
    mantissa, exponent = np.frexp(np.maximum(sizes_C, 1).astype(np.float64))
    low = mantissa < math.sqrt(0.5)
    mantissa, exponent = np.where(low, mantissa * 2, mantissa), exponent - low
    # log m = 2 artanh z, z = (m - 1) / (m + 1), |z| < 0.172
    z = (mantissa - 1) / (mantissa + 1)
    square, series = z * z, np.zeros(len(sizes_C))
    for term in range(_LOG_TERMS, -1, -1):
        series = series * square + 1 / (2 * term + 1)
    exponent_out = alpha * (exponent + 2 * z * series / _LN_2)
    whole = np.rint(exponent_out)
    # 2^f = exp(f log 2), |f| <= 1/2, by its Taylor series
    fraction, result = (exponent_out - whole) * _LN_2, np.ones(len(sizes_C))
    for term in range(_EXP_TERMS, 0, -1):
        result = result * fraction / term + 1
    return np.where(sizes_C > 0, np.ldexp(result, whole.astype(np.int64)), 0.0)
