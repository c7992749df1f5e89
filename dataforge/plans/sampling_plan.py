"""A sampling plan: which document is draw number i, and why.

`SamplingPlan.build` asks a sampler for weights, cap and schedule, solves the budget once (`allocation`), and cuts the
run into an order (`order`). Everything after that is look-up: a plan holds clusters, never documents or positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataforge.errors import ConfigError, InputError, PastTheEnd, PlanInfeasible
from dataforge.plans.allocation import (
    MAX_BUDGET,
    Allocation,
    caps_of,
    check_sizes,
    integer_weights,
    per_cluster,
    refuse_infeasible,
    water_fill,
)
from dataforge.plans.order import Order
from dataforge.plans.samplers import mixture_of

if TYPE_CHECKING:
    from dataforge.plans.members import Members
    from dataforge.plans.plan_diff import PlanDiff
    from dataforge.plans.preview import Preview

I64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class SamplingPlan:
    """A finished plan. Make one with `build`, read one with `open`."""

    sampler: str
    schedule: str
    seed: int
    unit: str
    """What the budget counts: "draws" or "tokens"."""
    budget: int
    max_repeats: int | None
    """Most times one document may be drawn; None where the sampler has no cap."""
    level: Fraction
    """Units per unit of weight for a cluster that is neither at its floor nor at its cap."""
    sizes_C: I64
    """Documents in each cluster, shape (C,)."""
    draws_per_cluster: I64
    """Draws of each cluster, int64, shape (C,): the same for every seed."""
    caps_C: I64
    """Most draws of each cluster that repeats and ceilings allow; MAX_BUDGET and more where nothing limits it."""
    floors_C: I64
    """Fewest draws of each cluster that were asked for."""
    weights_C: I64
    """Relative shares that the sampler asked for, boosts included."""
    rates_C: NDArray[np.float64] | None
    """Relative draws per step while a cluster is active; None where all are equal."""
    tokens_C: I64 | None
    """Tokens in each cluster, where the budget counts tokens or they were told."""
    boosts: Mapping[int, float] = field(default_factory=dict)
    """Factors on the weights of single clusters."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The sampler's own options."""
    members: Members | None = None
    """Which documents each cluster holds; a plan built from sizes alone has none."""

    @classmethod
    def build(
        cls,
        sizes: ArrayLike,
        *,
        sampler: str = "clusterclip",
        num_draws: int | None = None,
        num_tokens: int | None = None,
        epochs: float | None = None,
        max_repeats: int | None = 4,
        seed: int,
        mean_tokens: ArrayLike | None = None,
        schedule: str | None = None,
        boosts: Mapping[int, float] | None = None,
        floors: ArrayLike | None = None,
        ceilings: ArrayLike | None = None,
        where: str | None = None,
        **options: Any,
    ) -> SamplingPlan:
        """A plan over clusters of the given sizes.

        Exactly one of `num_draws`, `num_tokens` and `epochs` says how long the run is.

        Args:
            sizes: documents in each cluster, shape (C,); empty clusters are ignored.
            sampler: a name in `dataforge.plans.samplers`.
            num_draws: documents to draw, repeats included.
            num_tokens: tokens to draw; shares are solved in tokens, then each cluster's are divided by its mean length.
            epochs: draws as a multiple of the number of documents.
            max_repeats: most times one document may be drawn; None for no limit.
            seed: keys the order and nothing else.
            mean_tokens: mean tokens of a document, one number or one for each cluster; needed for `num_tokens`.
            schedule: "progressive" or "stationary"; the sampler's own if not given.
            boosts: cluster -> factor on its weight.
            floors, ceilings: fewest and most draws (tokens, for `num_tokens`) of each cluster, shape (C,).
            where: what errors name as the place.
            options: the sampler's own, `alpha` for `temperature`.
        Raises:
            PlanInfeasible: the budget cannot be met; the hint says what could.
            ConfigError: an option is missing, unknown or out of range.

        >>> plan = SamplingPlan.build([5000, 1000, 300, 80, 20, 5], num_draws=12_000, seed=1)
        >>> plan.draws_per_cluster
        array([6380, 4000, 1200,  320,   80,   20])
        """
        sizes_C = check_sizes(sizes)
        unit, budget = _budget(sizes_C, num_draws, num_tokens, epochs)
        tokens_C = None if mean_tokens is None else _tokens(sizes_C, mean_tokens)
        if unit == "tokens" and tokens_C is None:
            raise ConfigError(
                "a budget in tokens needs the mean length of documents",
                where=where,
                hint="give `mean_tokens`, one number for each cluster",
            )
        stock_C = sizes_C if unit == "draws" or tokens_C is None else tokens_C
        mixture = mixture_of(sampler, stock_C, max_repeats=max_repeats, schedule=schedule, options=options)
        weights_C = _weights(mixture.weights_C, boosts or {}) if stock_C.any() else stock_C
        floors_C = np.where(stock_C > 0, per_cluster("floors", floors, len(sizes_C), 0), 0)
        caps_C = caps_of(stock_C, MAX_BUDGET, mixture.max_repeats, ceilings)
        caps_C = np.where(weights_C > 0, caps_C, np.minimum(floors_C, caps_C))
        refuse_infeasible(
            stock_C,
            budget,
            mixture.max_repeats,
            caps_C=caps_C,
            floors_C=floors_C,
            ceilings_C=ceilings,
            unit=unit,
            where=where,
        )
        allocation = water_fill(budget, weights_C, caps_C=np.minimum(caps_C, budget), floors_C=floors_C)
        even = unit == "draws" and not floors_C.any() and _one_value(weights_C[stock_C > 0])
        rates = _rates(allocation, weights_C, caps_C, floors_C, mixture.schedule)
        draws_C = allocation.shares_C
        if unit == "tokens":
            draws_C, caps_C, floors_C = (_documents(share, stock_C, sizes_C) for share in (draws_C, caps_C, floors_C))
            rates = rates * sizes_C / np.maximum(stock_C, 1)
            if not draws_C.any():
                raise PlanInfeasible(
                    f"{budget:,} tokens are less than half a document of any cluster",
                    where=where,
                    hint=f"raise `num_tokens` to {int((stock_C // np.maximum(sizes_C, 1)).max()):,} or more",
                )
        given = draws_C[draws_C > 0]
        alike = int(given.max()) - int(given.min()) <= 1
        if mixture.schedule == "stationary":
            even, rates = alike, draws_C.astype(np.float64)
        return cls(
            sampler=sampler,
            schedule=mixture.schedule,
            seed=int(seed),
            unit=unit,
            budget=budget,
            max_repeats=mixture.max_repeats,
            level=allocation.level,
            sizes_C=_sealed(sizes_C),
            draws_per_cluster=_sealed(draws_C),
            caps_C=_sealed(caps_C),
            floors_C=_sealed(floors_C),
            weights_C=_sealed(weights_C),
            rates_C=None if even else rates,
            tokens_C=tokens_C,
            boosts=dict(boosts or {}),
            options=dict(options),
        )

    @classmethod
    def open(cls, artifact_or_folder: Any) -> SamplingPlan:
        """The plan of a plans artifact, or of a folder that `save` wrote.

        Raises:
            FormatError: a file is torn, or the order is of a later algorithm version.
        """
        from dataforge.plans.plan_file import read_plan

        return read_plan(Path(getattr(artifact_or_folder, "path", artifact_or_folder)))

    def save(self, folder: Path | str) -> None:
        """Write `plan.json` to a folder; a member index is written beside it by `members.write_members`."""
        from dataforge.plans.plan_file import write_plan

        write_plan(self, Path(folder) / "plan.json")

    @cached_property
    def order(self) -> Order:
        """Segments, blocks and permutations, made at first use in time of the number of clusters."""
        return Order(self.sizes_C, self.draws_per_cluster, seed=self.seed, rates_C=self.rates_C)

    @cached_property
    def num_draws(self) -> int:
        """Positions of the run."""
        return int(self.draws_per_cluster.sum())

    @property
    def num_clusters(self) -> int:
        """Clusters, empty ones included."""
        return len(self.sizes_C)

    @property
    def num_documents(self) -> int:
        """Documents that the clusters hold."""
        return int(self.sizes_C.sum())

    def at(self, positions: ArrayLike) -> tuple[I64, I64, I64]:
        """Cluster, document in the cluster and epoch of each position: three int64 arrays of its shape.

        A pure function of plan and position: any order, any worker, again and again. Ask for 1,024 positions or more at
        once where speed matters. The epoch is how often the document was drawn before.

        Args:
            positions: whole numbers in [0, num_draws).
        Raises:
            PastTheEnd: a position is outside the run.
        """
        return self.order.at(self._checked(positions))

    def document_numbers(self, cluster: ArrayLike, document_in_cluster: ArrayLike) -> I64:
        """The document numbers of documents given by cluster and place in it, as `at` gives them.

        Raises:
            InputError: the plan has no member index, or the place is not there.
        """
        if self.members is None:
            raise InputError(
                "the plan was built from sizes alone: it does not know document numbers",
                hint="make it with `dataforge plan`, or open it from a folder with members.bin",
            )
        return self.members.document_numbers(cluster, document_in_cluster)

    def reason(self, position: int) -> dict[str, Any]:
        """Why the document at a position is drawn there: plain values, ready for JSON.

        `weight` is the cluster's share of all weights (boost included); `cap` and `floor` are in draws; `clipped` says
        whether the cluster ends this plan at its cap.
        """
        place = self.order.place(self._checked([position]))
        cluster, segment = int(place.cluster[0]), int(place.segment[0])
        edges = self.order.segments.edges
        told: dict[str, Any] = {
            "position": int(position),
            "sampler": self.sampler,
            "schedule": self.schedule,
            "segment": segment,
            "segment_start": int(edges[segment]),
            "segment_end": int(edges[segment + 1]),
            "block": int(place.block[0]),
            "slot": int(place.slot[0]),
            "cluster": cluster,
            "document_in_cluster": int(place.document[0]),
            "epoch": int(place.epoch[0]),
            "draws_before": int(place.draws_before[0]),
            "cluster_documents": int(self.sizes_C[cluster]),
            "cluster_draws": int(self.draws_per_cluster[cluster]),
            "weight": int(self.weights_C[cluster]) / sum(map(int, self.weights_C)),
            "boost": self.boosts.get(cluster, 1.0),
            "floor": int(self.floors_C[cluster]),
            "cap": int(self.caps_C[cluster]) if self.caps_C[cluster] < MAX_BUDGET else None,
            "max_repeats": self.max_repeats,
            "clipped": bool(self.clipped_C[cluster]),
        }
        if self.members is not None:
            told["document"] = int(self.document_numbers(place.cluster, place.document)[0])
        return told

    @cached_property
    def clipped_C(self) -> NDArray[np.bool_]:
        """Which clusters give all that their cap allows."""
        return (self.draws_per_cluster >= self.caps_C) & (self.caps_C > 0)

    def preview(self) -> Preview:
        """Level, clip order and moments, phases, repeats, unused documents, balance: what the plan will do."""
        from dataforge.plans.preview import Preview

        return Preview.of(self)

    def diff(self, other: SamplingPlan) -> PlanDiff:
        """What changes from this plan to another over the same clusters, by cluster and by documents."""
        from dataforge.plans.plan_diff import PlanDiff

        return PlanDiff.between(self, other)

    def _checked(self, positions: ArrayLike) -> I64:
        array = np.asarray(positions)
        if array.size == 0:
            return array.astype(np.int64)
        if array.dtype.kind not in "iu":
            raise ConfigError(f"positions must be whole numbers, got {array.dtype}")
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self.num_draws:
            raise PastTheEnd(
                f"there is no position {low if low < 0 else high:,}",
                hint=f"the plan's positions run from 0 to {self.num_draws - 1:,}",
            )
        return array.astype(np.int64, copy=False)


def _budget(sizes_C: I64, num_draws: int | None, num_tokens: int | None, epochs: float | None) -> tuple[str, int]:
    """Unit and amount of the one budget that was given."""
    given = {"num_draws": num_draws, "num_tokens": num_tokens, "epochs": epochs}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        what = (
            " and ".join(named) + " are both given" if named else "neither num_draws nor num_tokens nor epochs is given"
        )
        raise ConfigError(f"{what}, so the length of the run is not clear", hint="give exactly one of the three")
    if epochs is not None:
        num_draws = round(epochs * int(sizes_C.sum()))
    unit, amount = ("draws", num_draws) if num_tokens is None else ("tokens", num_tokens)
    assert amount is not None
    if amount < 1:
        raise ConfigError(f"a plan needs at least one of its {unit}, got {amount:,}", hint=f"raise `{named[0]}`")
    return unit, int(amount)


def _tokens(sizes_C: I64, mean_tokens: ArrayLike) -> I64:
    means = np.asarray(mean_tokens, np.float64)
    if means.shape not in ((), sizes_C.shape) or not np.isfinite(means).all() or (means < 0).any():
        raise ConfigError(
            f"mean_tokens must be one number or {len(sizes_C):,} of them, not negative; got shape {means.shape}"
        )
    return np.rint(sizes_C * means).astype(np.int64)


def _weights(asked_C: NDArray[Any], boosts: Mapping[int, float]) -> I64:
    """Integer weights in lowest terms, boosts applied."""
    factors = np.ones(len(asked_C))
    for cluster, factor in boosts.items():
        if not 0 <= cluster < len(asked_C):
            raise ConfigError(f"there is no cluster {cluster}", hint=f"clusters run from 0 to {len(asked_C) - 1}")
        factors[cluster] = factor
    weights_C = integer_weights(asked_C * factors if boosts else asked_C)
    return weights_C // np.gcd.reduce(weights_C)


def _rates(allocation: Allocation, weights_C: I64, caps_C: I64, floors_C: I64, schedule: str) -> NDArray[np.float64]:
    """Units per step, such that at level 1 every cluster has given its share, and a clipped one did so before."""
    shares = allocation.shares_C.astype(np.float64)
    if schedule == "stationary":
        return shares
    wanted = np.maximum(weights_C * float(allocation.level), floors_C)
    return np.where(allocation.shares_C >= caps_C, np.maximum(wanted, shares), shares)


def _documents(units_C: I64, stock_C: I64, sizes_C: I64) -> I64:
    """Units (tokens) of each cluster as documents of its mean length, rounded to nearest, exactly."""
    told = zip(units_C.tolist(), stock_C.tolist(), sizes_C.tolist(), strict=True)
    documents = [(2 * units * size + stock) // (2 * stock) if stock else 0 for units, stock, size in told]
    return np.where(units_C < MAX_BUDGET, np.minimum(documents, MAX_BUDGET), MAX_BUDGET).astype(np.int64)


def _one_value(values: I64) -> bool:
    return values.size == 0 or bool((values == values[0]).all())


def _sealed(values: I64) -> I64:
    values = np.array(values, dtype=np.int64)
    values.setflags(write=False)
    return values
