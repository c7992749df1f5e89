"""What changes from one plan to another over the same clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dataforge.errors import ConfigError

if TYPE_CHECKING:
    from dataforge.plans.sampling_plan import SamplingPlan

I64 = NDArray[np.int64]

_TURNS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Change:
    """One cluster's draws before and after."""

    cluster: int
    before: int
    after: int


@dataclass(frozen=True, eq=False)
class PlanDiff:
    """From one plan (before) to another (after)."""

    settings: dict[str, tuple[Any, Any]]
    """Settings that differ, as (before, after)."""
    draws_C: I64
    """Draws after less draws before, shape (C,)."""
    same_order: bool
    """Whether every position that both plans have draws the same document."""
    moved_share: float
    """Total variation distance of the two mixtures: the share of the run that changes clusters."""
    changes: list[Change]
    """The ten clusters that change most in draws, largest change first."""
    documents_added: int
    """Documents that only the plan after draws."""
    documents_dropped: int
    """Documents that only the plan before draws."""

    @classmethod
    def between(cls, before: SamplingPlan, after: SamplingPlan) -> PlanDiff:
        """Compare two plans. Time grows with the documents of clusters that a plan does not draw whole.

        Raises:
            ConfigError: the plans are not over the same clusters.
        """
        if not np.array_equal(before.sizes_C, after.sizes_C):
            raise ConfigError(
                f"the plans are over different clusters: {before.num_documents:,} documents in {before.num_clusters:,} "
                f"and {after.num_documents:,} in {after.num_clusters:,}",
                hint="compare plans that were made from the same clusters artifact",
            )
        names = ("sampler", "schedule", "seed", "unit", "budget", "max_repeats", "boosts", "options")
        told = {name: (getattr(before, name), getattr(after, name)) for name in names}
        change = after.draws_per_cluster - before.draws_per_cluster
        largest = np.argsort(-np.abs(change), kind="stable")[:10]
        shares = after.draws_per_cluster / after.num_draws - before.draws_per_cluster / before.num_draws
        added, dropped = _documents(before, after)
        same_rates = before.rates_C is None and after.rates_C is None
        return cls(
            settings={name: pair for name, pair in told.items() if pair[0] != pair[1]},
            draws_C=change,
            same_order=before.seed == after.seed
            and not change.any()
            and (same_rates or np.array_equal(_rates(before), _rates(after))),
            moved_share=float(np.abs(shares).sum() / 2),
            changes=[
                Change(int(c), int(before.draws_per_cluster[c]), int(after.draws_per_cluster[c]))
                for c in largest
                if change[c]
            ],
            documents_added=added,
            documents_dropped=dropped,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the per-cluster array."""
        return {
            "settings": {name: list(pair) for name, pair in self.settings.items()},
            "same_order": self.same_order,
            "moved_share": self.moved_share,
            "changes": [vars(change) for change in self.changes],
            "documents_added": self.documents_added,
            "documents_dropped": self.documents_dropped,
        }


def _rates(plan: SamplingPlan) -> NDArray[np.float64]:
    return np.ones(plan.num_clusters) if plan.rates_C is None else plan.rates_C


def _documents(before: SamplingPlan, after: SamplingPlan) -> tuple[int, int]:
    """Documents added and dropped.

    In the first pass over a cluster, a plan draws the documents at turns 0 to min(draws, size) - 1 of its permutation.
    With one seed both plans walk the same permutation and the shorter walk is part of the longer; else each document
    of the shorter walk is looked up in the other's permutation.
    """
    drawn_before = np.minimum(before.draws_per_cluster, before.sizes_C)
    drawn_after = np.minimum(after.draws_per_cluster, after.sizes_C)
    both = np.minimum(drawn_before, drawn_after)
    if before.seed != after.seed:
        partly = np.flatnonzero((np.maximum(drawn_before, drawn_after) < before.sizes_C) & (both > 0))
        for cluster in partly.tolist():
            shorter, longer = (before, after) if drawn_before[cluster] <= drawn_after[cluster] else (after, before)
            both[cluster] = _common(shorter, longer, cluster)
    return int((drawn_after - both).sum()), int((drawn_before - both).sum())


def _common(shorter: SamplingPlan, longer: SamplingPlan, cluster: int) -> int:
    """Documents of a cluster that both plans draw in their first pass."""
    found = 0
    drawn, limit = int(shorter.draws_per_cluster[cluster]), int(longer.draws_per_cluster[cluster])
    for start in range(0, drawn, _TURNS_AT_ONCE):
        turn = np.arange(start, min(start + _TURNS_AT_ONCE, drawn), dtype=np.int64)
        same, zero = np.full(len(turn), cluster, np.int64), np.zeros(len(turn), np.int64)
        document = shorter.order.documents(same, zero, turn)
        found += int((longer.order.turns(same, zero, document) < limit).sum())
    return found
