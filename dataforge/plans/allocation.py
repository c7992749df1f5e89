"""How many draws each cluster gets: one weighted water-filling solver for every sampler, in exact integers.

    a_g = clamp(level * w_g, floor_g, cap_g)        with `level` such that the a_g sum to the budget

Uniform, temperature, UniMax, ClusterClip and given mixtures differ only in weights and caps. Nothing here knows a seed,
so an allocation can be explained, compared and made again from the sizes alone.

Source: the level that ClusterClip (arXiv:2402.14526) ends at, and UniMax (arXiv:2304.09151), are both this
with equal weights. Departure: exact counts where the papers draw at random or round as they go.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataforge.errors import ConfigError, PlanInfeasible

I64 = NDArray[np.int64]

MAX_BUDGET = 1 << 52
"""Budgets and caps stay exact in float64, which puts the edges of the solver in order."""
_WEIGHT_BITS = 40


def draws_per_cluster(
    sizes_C: ArrayLike,
    num_draws: int,
    max_repeats: int | None,
    *,
    weights_C: ArrayLike | None = None,
    floors_C: ArrayLike | None = None,
    ceilings_C: ArrayLike | None = None,
) -> I64:
    """Share a budget of draws evenly (or by weight) over clusters, clipping repeats.

    Every cluster gets the same number until it would have to repeat a document more than `max_repeats` times; what it
    cannot take is shared among the others. Left-over draws go to the lowest cluster ids.

    Args:
        sizes_C: documents in each cluster, int64, shape (C,). Empty clusters are allowed.
        num_draws: documents to draw in all, repeats included.
        max_repeats: most times one document may be drawn, at least 1; None for no limit.
        weights_C: relative shares, not negative; equal if not given. A weight of 0 leaves a cluster at its floor.
        floors_C: fewest draws of each cluster; 0 if not given. An empty cluster's floor is ignored.
        ceilings_C: most draws of each cluster, beside `max_repeats`.
    Returns:
        Draws for each cluster, int64, shape (C,), summing to exactly `num_draws`.
    Raises:
        PlanInfeasible: the caps allow less than `num_draws`, or the floors ask for more.

    >>> draws_per_cluster(np.array([2, 3, 10]), num_draws=24, max_repeats=3)
    array([6, 9, 9])

    Source: ClusterClip, arXiv:2402.14526. Departure: exact counts, not random draws, so a plan can be made again.
    """
    sizes = check_sizes(sizes_C)
    weights = np.ones(len(sizes), np.int64) if weights_C is None else integer_weights(weights_C)
    floors = np.where(sizes > 0, per_cluster("floors", floors_C, len(sizes), 0), 0)
    caps = caps_of(sizes, num_draws, max_repeats, ceilings_C)
    caps = np.where(weights > 0, caps, np.minimum(floors, caps))
    refuse_infeasible(sizes, num_draws, max_repeats, caps_C=caps, floors_C=floors, ceilings_C=ceilings_C)
    return water_fill(num_draws, weights, caps_C=caps, floors_C=floors).shares_C


@dataclass(frozen=True)
class Allocation:
    """What `water_fill` found."""

    shares_C: I64
    """Units for each cluster; they sum to the budget."""
    level: Fraction
    """Units per unit of weight of every cluster that is neither at its floor nor at its cap."""


def water_fill(budget: int, weights_C: I64, *, caps_C: I64, floors_C: I64 | None = None) -> Allocation:
    """The shares clamp(level * weight, floor, cap) that sum to `budget`, in exact integers.

    The level is an exact fraction, found by binary search over the 2C levels at which a cluster leaves its floor or
    meets its cap. Shares are rounded down and the units left over go to the lowest ids that lost a fraction, so each
    share is its real value rounded down or up.

    Args:
        budget: units to share, between the sum of the floors and that of the caps of clusters with a weight.
        weights_C: int64, not negative, shape (C,).
        caps_C: most units of each cluster, int64, shape (C,).
        floors_C: fewest units, at most the caps; 0 if not given.

    >>> water_fill(10, np.array([1, 1, 2]), caps_C=np.array([1, 9, 9]))
    Allocation(shares_C=array([1, 3, 6]), level=Fraction(3, 1))
    """
    floors_C = np.zeros(len(weights_C), np.int64) if floors_C is None else floors_C
    moving = np.flatnonzero((weights_C > 0) & (caps_C > floors_C))
    shares = floors_C.copy()
    if not moving.size:
        assert budget == int(shares.sum()), "callers refuse such a budget"
        return Allocation(shares, Fraction(0))
    weight, floor, cap = weights_C[moving], floors_C[moving], caps_C[moving]
    unit = int(np.gcd.reduce(weight))
    weight = weight // unit
    if budget * max(int(weight.max()), len(weight)) >= 1 << 62:  # sums or products leave 64 bits
        weight, floor, cap = weight.astype(object), floor.astype(object), cap.astype(object)

    # Each moving cluster leaves its floor at level floor/w and meets its cap at level cap/w. Between two such edges the
    # total is fixed + slope * level. Correctly rounded quotients never swap two edges; they may tie edges that differ
    # by less than one part in 2^52, which is less than one unit and is taken up by the rounding below.
    edge, edge_weight = np.concatenate([floor, cap]), np.concatenate([weight, weight])
    order = np.argsort((edge / edge_weight).astype(np.float64), kind="stable")  # of equal levels, floors come first
    edge, edge_weight = edge[order], edge_weight[order]
    slope = np.concatenate([weight, -weight])[order].cumsum()
    fixed = int(shares.sum()) + np.concatenate([-floor, cap])[order].cumsum()
    low, high = 0, len(order)  # the last edge at which the total is within the budget; at the first it is
    while high - low > 1:
        middle = (low + high) // 2
        within = int(slope[middle]) * int(edge[middle]) <= (budget - int(fixed[middle])) * int(edge_weight[middle])
        low, high = (middle, high) if within else (low, middle)
    if slope[low]:
        level = Fraction(budget - int(fixed[low]), int(slope[low]))
    else:
        level = Fraction(int(edge[low]), int(edge_weight[low]))

    whole, rest = (weight * level.numerator) // level.denominator, (weight * level.numerator) % level.denominator
    share = np.clip(whole, floor, cap)
    rounded_down = np.flatnonzero((whole >= floor) & (share < cap) & (rest > 0))
    left_over = budget - int(shares.sum()) - int((share - floor).sum())
    assert 0 <= left_over <= len(rounded_down), "callers refuse budgets outside floors and caps"
    share[rounded_down[:left_over]] += 1
    shares[moving] = share
    return Allocation(shares, level / unit)


def integer_weights(weights_C: ArrayLike) -> I64:
    """Weights as integers in the same ratios: integers stay, floats become multiples of 2^-40 of the largest.

    A positive weight never becomes 0. Raises ConfigError for a negative or not finite weight, or if all are 0.

    >>> integer_weights([0.5, 0.25, 0.0]) // 2**38
    array([4, 2, 0])
    """
    weights = np.asarray(weights_C)
    if weights.ndim != 1 or weights.dtype.kind not in "iuf":
        raise ConfigError(f"weights must be a list of numbers, got {weights.dtype} of shape {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise ConfigError("weights must be finite, not negative and not all 0", hint="1.0 for each is an equal share")
    if weights.dtype.kind in "iu" and int(weights.max()) * len(weights) < 1 << 62:
        return weights.astype(np.int64)
    scaled = np.rint(weights / weights.max() * float(1 << _WEIGHT_BITS)).astype(np.int64)
    return np.where(weights > 0, np.maximum(scaled, 1), 0)


def check_sizes(sizes_C: ArrayLike) -> I64:
    """Documents in each cluster as int64, shape (C,). Raises ConfigError for anything else than counts."""
    sizes = np.asarray(sizes_C)
    if sizes.size == 0:
        sizes = sizes.astype(np.int64)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu":
        raise ConfigError(f"sizes must be a list of document counts, got {sizes.dtype} of shape {sizes.shape}")
    sizes = sizes.astype(np.int64)
    if (sizes < 0).any():
        raise ConfigError(f"sizes must not be negative, cluster {int(sizes.argmin())} has {int(sizes.min())}")
    if sizes.size and int(sizes.max()) * sizes.size >= 1 << 62 and sum(map(int, sizes)) > MAX_BUDGET:
        raise ConfigError(f"sizes sum to more than {MAX_BUDGET:,} documents")
    return sizes


def per_cluster(name: str, values_C: ArrayLike | None, num_clusters: int, default: int) -> I64:
    """One count per cluster from an option that may be missing. Raises ConfigError on a wrong length or a negative."""
    if values_C is None:
        return np.full(num_clusters, default, np.int64)
    values = np.asarray(values_C)
    if values.shape != (num_clusters,) or values.dtype.kind not in "iu" or (values < 0).any():
        raise ConfigError(
            f"{name} must be {num_clusters:,} whole numbers of 0 or more, got {values.dtype} of shape {values.shape}",
            hint="give one number for each cluster, empty ones included",
        )
    return np.minimum(values, MAX_BUDGET).astype(np.int64)


def caps_of(sizes_C: I64, budget: int, max_repeats: int | None, ceilings_C: ArrayLike | None = None) -> I64:
    """Most units of each cluster: `max_repeats` times its size or its ceiling; never more than the budget.

    >>> caps_of(np.array([2, 3, 0, 10]), 24, max_repeats=3)
    array([ 6,  9,  0, 24])
    """
    if not 0 <= budget <= MAX_BUDGET:
        raise ConfigError(f"a budget must lie between 0 and {MAX_BUDGET:,}, got {budget:,}")
    if max_repeats is not None and max_repeats < 1:
        raise ConfigError(f"max_repeats must be at least 1, got {max_repeats}")
    ceilings = np.minimum(per_cluster("ceilings", ceilings_C, len(sizes_C), budget), budget)
    repeats = budget if max_repeats is None else min(max_repeats, budget)
    # size * repeats may leave 64 bits; where it would pass the budget, the budget is the cap.
    fits = sizes_C <= budget // max(repeats, 1)
    caps = np.where(fits, np.where(fits, sizes_C, 0) * repeats, budget)
    return np.where(sizes_C > 0, np.minimum(caps, ceilings), 0)


def refuse_infeasible(
    sizes_C: I64,
    budget: int,
    max_repeats: int | None,
    *,
    caps_C: I64,
    floors_C: I64,
    ceilings_C: ArrayLike | None = None,
    unit: str = "draws",
    where: str | None = None,
) -> None:
    """Raise PlanInfeasible, with what would be feasible, unless floors <= caps and floors' sum <= budget <= caps' sum.

    `caps_C` are those of `caps_of`, 0 where the weight is 0; `unit` is "draws" (sizes count documents) or "tokens".
    """
    option = f"num_{unit}"
    stock = "documents" if unit == "draws" else "tokens"
    for cluster in np.flatnonzero((floors_C > caps_C) & (sizes_C > 0))[:1]:
        raise PlanInfeasible(
            f"cluster {cluster} has a floor of {int(floors_C[cluster]):,} {unit}, its cap is {int(caps_C[cluster]):,}",
            where=where,
            hint=f"lower its floor to {int(caps_C[cluster]):,} or raise `max_repeats`",
        )
    wanted = sum(map(int, floors_C))
    if wanted > budget:
        raise PlanInfeasible(
            f"the floors ask for {wanted:,} {unit}, but the plan has {budget:,}",
            where=where,
            hint=f"lower the floors or raise `{option}` to {wanted:,}",
        )
    allowed = sum(map(int, caps_C))
    if allowed >= budget:
        return
    # A budget past the caps means that no cap was cut to the budget, so `allowed` is what the clusters really allow.
    drawable = np.where(caps_C > 0, sizes_C, 0)
    stock_sum = int(drawable.sum())
    what = f"plan needs {budget:,} {unit}, but {stock_sum:,} {stock}"
    if not stock_sum:
        raise PlanInfeasible(f"{what} are there to draw", where=where, hint="give clusters that hold documents")
    lower = f"lower `{option}` to {allowed:,}"
    if max_repeats is None:
        raise PlanInfeasible(f"{what} under the given ceilings allow {allowed:,}", where=where, hint=lower)
    needed, most = -(-budget // stock_sum), budget  # repeats that would do, if any do
    if ceilings_C is not None:
        what += " under the given ceilings"
        while needed < most:
            middle = (needed + most) // 2
            enough = sum(map(int, caps_of(drawable, budget, middle, ceilings_C))) >= budget
            needed, most = (needed, middle) if enough else (middle + 1, most)
        if sum(map(int, caps_of(drawable, budget, needed, ceilings_C))) < budget:
            lower, needed = f"raise the ceilings or {lower}", 0
    raise PlanInfeasible(
        f"{what} at max_repeats={max_repeats} allow {allowed:,}",
        where=where,
        hint=f"raise `max_repeats` to {needed} or {lower}" if needed else lower,
    )
