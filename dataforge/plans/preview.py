"""What a plan will do, from its numbers alone: no draw is simulated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dataforge.plans.sampling_plan import SamplingPlan

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Clip:
    """A cluster that its cap takes out of the run."""

    cluster: int
    position: int
    """Draws made when it leaves. Its last draw is before this; the run's length if it gives until the end."""
    draws: int


@dataclass(frozen=True)
class Phase:
    """A stretch of the run during which the same clusters are active."""

    start: int
    end: int
    active_clusters: int
    largest_share: float
    smallest_share: float


@dataclass(frozen=True)
class Gain:
    """How a cluster's share of the run compares with its share of the documents."""

    cluster: int
    documents: int
    draws: int
    times: float
    """Draws per document, relative to that of the whole run: 1 is proportional."""


@dataclass(frozen=True, eq=False)
class Preview:
    """The plan in numbers. Per-cluster arrays have shape (C,)."""

    num_draws: int
    num_documents: int
    num_clusters: int
    """Clusters that hold documents."""
    level: float
    """Units (draws or tokens) of a cluster of mean weight that is neither clipped nor at its floor."""
    max_repeats: int | None
    clips: list[Clip]
    """Clipped clusters in the order in which they leave."""
    phases: list[Phase]
    repeats_C: NDArray[np.float64]
    """Mean times a document of the cluster is drawn."""
    repeated_share: float
    """Share of draws whose document was drawn before."""
    unused_documents: int
    effective_clusters: float
    """exp of the entropy of the draws over clusters: how many equal clusters would be as even."""
    effective_clusters_before: float
    """The same for the documents themselves."""
    gainers: list[Gain]
    """The ten clusters that gain most against proportional sampling, most first."""
    losers: list[Gain]
    expected_tokens: int | None
    """Draws times mean length, summed; None where lengths are not known. What is realised, `pack` reports."""

    @classmethod
    def of(cls, plan: SamplingPlan) -> Preview:
        sizes, draws = plan.sizes_C, plan.draws_per_cluster
        num_draws, num_documents = plan.num_draws, plan.num_documents
        clips, phases = _clips_and_phases(plan)
        held = np.flatnonzero(sizes)
        repeats = draws / np.maximum(sizes, 1)
        times = repeats * (num_documents / num_draws)
        ranked = held[np.argsort(-times[held], kind="stable")]
        tokens = plan.tokens_C
        weights = plan.weights_C[held]
        return cls(
            num_draws=num_draws,
            num_documents=num_documents,
            num_clusters=len(held),
            level=float(plan.level) * float(weights.mean()),
            max_repeats=plan.max_repeats,
            clips=clips,
            phases=phases,
            repeats_C=repeats,
            repeated_share=1 - int(np.minimum(draws, sizes).sum()) / num_draws,
            unused_documents=int(np.maximum(sizes - draws, 0).sum()),
            effective_clusters=_effective(draws),
            effective_clusters_before=_effective(sizes),
            gainers=[_gain(plan, times, c) for c in ranked[:10] if times[c] > 1],
            losers=[_gain(plan, times, c) for c in ranked[::-1][:10] if times[c] < 1],
            expected_tokens=None if tokens is None else round(float((repeats * tokens).sum())),
        )

    def to_json(self, most: int = 100) -> dict[str, Any]:
        """Plain values; of clips and phases the first `most`, without the per-cluster arrays."""
        told: dict[str, Any] = {"num_clips": len(self.clips), "num_phases": len(self.phases)}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, list):
                told[f.name] = [dataclasses.asdict(item) for item in value[:most]]
            elif not isinstance(value, np.ndarray):
                told[f.name] = value
        return told


def summary_lines(plan: SamplingPlan) -> list[str]:
    """What the command line says after planning: one line on the draws, one on the level and the clip."""
    held = int((plan.sizes_C > 0).sum())
    lines = [
        f"drew     {plan.num_draws:,} times from {plan.num_documents:,} {_many(plan.num_documents, 'document')} "
        f"in {held:,} {_many(held, 'cluster')}"
    ]
    active = plan.weights_C[plan.sizes_C > 0]
    if (active == active[0]).all():
        level = f"level    {int(plan.level * int(active[0])):,} {plan.unit} a cluster"
    else:
        shares = plan.draws_per_cluster[plan.draws_per_cluster > 0]
        level = f"level    {int(shares.min()):,} to {int(shares.max()):,} draws a cluster"
    clipped = int(plan.clipped_C.sum())
    if plan.max_repeats is None:
        most = float((plan.draws_per_cluster / np.maximum(plan.sizes_C, 1)).max())
        told = f"no clip, up to {most:,.1f} repeats"
    elif clipped:
        told = f"{clipped:,} small {_many(clipped, 'cluster')} clipped at {plan.max_repeats} repeats"
    else:
        told = f"none clipped at {plan.max_repeats} repeats"
    lines.append(f"{level}; {told}")
    if plan.unit == "tokens":
        expected = plan.preview().expected_tokens
        lines.append(f"tokens   {expected:,} expected of {plan.budget:,}; `pack` reports what is realised")
    return lines


def _many(count: int, noun: str) -> str:
    return noun if count == 1 else noun + "s"


def _gain(plan: SamplingPlan, times: NDArray[np.float64], cluster: int) -> Gain:
    c = int(cluster)
    return Gain(c, int(plan.sizes_C[c]), int(plan.draws_per_cluster[c]), float(times[c]))


def _effective(counts: I64) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _clips_and_phases(plan: SamplingPlan) -> tuple[list[Clip], list[Phase]]:
    """Who leaves when, and the shares of those that are active in between, from the rates alone.

    A cluster leaves at level draws / rate; the draws made by then are the sum of min(draws, level * rate) over all. For
    equal rates that is t_j = C_j + (K - j) c_j, with the caps c in ascending order and C_j their running sum.
    """
    active = np.flatnonzero(plan.draws_per_cluster)
    draws = plan.draws_per_cluster[active]
    rates = np.ones(len(active)) if plan.rates_C is None else plan.rates_C[active]
    order = np.argsort(draws / rates, kind="stable")
    active, draws, rates = active[order], draws[order], rates[order]
    ends = draws / rates
    rate_after = np.append(np.cumsum(rates[::-1])[::-1], 0.0)  # of the clusters from each on
    largest = np.maximum.accumulate(rates[::-1])[::-1]
    smallest = np.minimum.accumulate(rates[::-1])[::-1]
    gone = np.searchsorted(ends, ends, side="right")  # clusters that have left when each has
    given = np.append(0.0, np.cumsum(draws, dtype=np.float64))
    position = np.minimum(np.rint(given[gone] + ends * rate_after[gone]).astype(np.int64), plan.num_draws)
    clipped = np.flatnonzero(plan.clipped_C[active])
    clips = [Clip(int(active[i]), int(position[i]), int(draws[i])) for i in clipped]

    starts, first = np.unique(position[clipped], return_index=True)
    starts, left = np.append(0, starts), np.append(0, gone[clipped][first])
    inside = starts < plan.num_draws
    starts, left = starts[inside], left[inside]
    ends_at = np.append(starts[1:], plan.num_draws)
    phases = [
        Phase(
            int(s), int(e), len(active) - int(j), float(largest[j] / rate_after[j]), float(smallest[j] / rate_after[j])
        )
        for s, e, j in zip(starts, ends_at, left, strict=True)
    ]
    return clips, phases
