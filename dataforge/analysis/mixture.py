"""Which sources and languages there are, and in which shares the plan draws them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dataforge.analysis.chain import Chain
from dataforge.analysis.charts import Pair, paired_bars
from dataforge.analysis.markup import Html, figure, table, tag
from dataforge.analysis.section import Section
from dataforge.corpus import Documents
from dataforge.workspace import Artifact

MOST_POSITIONS = 1 << 20
_MOST_ROWS = 30
_NONE = "(none)"


@dataclass(frozen=True)
class Mixture:
    """Amounts by the values of one column. Held-out documents are not counted."""

    column: str
    documents: Counter[str]
    draws: Counter[str]
    """Empty without a plan."""
    tokens: Counter[str]
    """Tokens of the documents; empty without shards."""
    tokens_drawn: Counter[str]
    share_of_positions: float
    """Below 1 where the plan is so long that only evenly spaced positions were looked at."""


def mixtures(chain: Chain, columns: tuple[str, ...] = ("source", "lang")) -> list[Mixture]:
    """The mixture of each column, from one pass over the documents.

    Memory: at most 2^20 draws, and one batch of documents.
    """
    artifact, plan_artifact, shards_artifact = chain.one("documents"), chain.one("plans"), chain.one("shards")
    assert artifact is not None
    if plan_artifact is not None and "documents" in plan_artifact.manifest.inputs:
        artifact = plan_artifact.input("documents")
    numbers, times, looked_at = _drawn(plan_artifact)
    told = [Mixture(name, Counter(), Counter(), Counter(), Counter(), looked_at) for name in columns]
    for batch_numbers, values, lengths in _batches(artifact, shards_artifact, columns):
        at = np.searchsorted(numbers, batch_numbers)
        at[at == len(numbers)] = 0
        drawn = np.where(numbers[at] == batch_numbers, times[at], 0) if len(numbers) else np.zeros_like(at)
        for mixture, column in zip(told, values, strict=True):
            names, place = np.unique(column, return_inverse=True)
            _add(mixture.documents, names, np.bincount(place))
            if plan_artifact is not None:
                _add(mixture.draws, names, np.bincount(place, weights=drawn))
            if lengths is not None:
                _add(mixture.tokens, names, np.bincount(place, weights=lengths))
                _add(mixture.tokens_drawn, names, np.bincount(place, weights=lengths * drawn))
    return told


def _drawn(plan_artifact: Artifact | None) -> tuple[np.ndarray, np.ndarray, float]:
    """Numbers drawn, ascending, how often each, and the share of the plan's positions looked at."""
    if plan_artifact is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), 1.0
    from dataforge.plans import SamplingPlan

    plan = SamplingPlan.open(plan_artifact)
    wanted = min(plan.num_draws, MOST_POSITIONS)
    positions = np.arange(wanted, dtype=np.int64) * plan.num_draws // wanted
    cluster, inside, _ = plan.at(positions)
    numbers, times = np.unique(plan.document_numbers(cluster, inside), return_counts=True)
    return numbers, times, wanted / plan.num_draws


def _batches(
    artifact: Artifact, shards_artifact: Artifact | None, columns: tuple[str, ...]
) -> Iterator[tuple[np.ndarray, list[np.ndarray], np.ndarray | None]]:
    shards = None
    if shards_artifact is not None:
        from dataforge.shards import Shards

        shards = Shards(shards_artifact)
    for part in Documents(artifact).parts:
        for numbers, batch in part.batches(columns, held_out=False, batch_rows=1 << 14):
            values = [np.array([value or _NONE for value in column.to_pylist()]) for column in batch.columns]
            yield numbers, values, None if shards is None else shards.lengths(numbers)


def _add(counter: Counter[str], names: np.ndarray, amounts: np.ndarray) -> None:
    for name, amount in zip(names.tolist(), amounts.tolist(), strict=True):
        counter[name] += int(amount)


def section(chain: Chain) -> Section:
    """Bars before and after for sources and for languages."""
    if chain.one("documents") is None:
        return Section("mixture", "Sources and languages", None, "there are no documents in this chain.")
    told = [mixture for mixture in mixtures(chain) if set(mixture.documents) != {_NONE}]
    if not told:
        return Section("mixture", "Sources and languages", None, "the documents name neither source nor language.")
    return Section("mixture", "Sources and languages", tag("div", *map(_figure, told), class_="two"))


def _figure(mixture: Mixture) -> Html:
    named = {"source": "Sources", "lang": "Languages"}.get(mixture.column, mixture.column)
    in_tokens = bool(mixture.tokens)
    before, after = (mixture.tokens, mixture.tokens_drawn) if in_tokens else (mixture.documents, mixture.draws)
    unit = "tokens" if in_tokens else "documents"
    total_before, total_after = sum(before.values()) or 1, sum(after.values())
    order = [name for name, _ in before.most_common()]
    pairs = [
        Pair(tag("bdi", name), before[name] / total_before, after[name] / total_after if total_after else None)
        for name in order[:_MOST_ROWS]
    ]
    rest = order[_MOST_ROWS:]
    if rest:
        left = sum(before[name] for name in rest), sum(after[name] for name in rest)
        share = left[1] / total_after if total_after else None
        pairs.append(Pair(f"{len(rest):,} others", left[0] / total_before, share))
    bars = paired_bars(
        pairs,
        title=f"{named}: shares of {unit}",
        before=f"{unit} there are",
        after=f"{unit} drawn" if total_after else None,
    )
    caption = f"{named}, by share of {unit}. Held-out documents are not counted."
    if mixture.share_of_positions < 1:
        caption += f" Draws are estimated from {mixture.share_of_positions:.1%} of the plan's positions, evenly spaced."
    return tag("div", tag("h3", named), figure(bars, caption, _numbers(mixture, order, named)))


def _numbers(mixture: Mixture, order: list[str], named: str) -> Html:
    columns = [("documents", mixture.documents), ("draws", mixture.draws), ("tokens", mixture.tokens),
               ("tokens drawn", mixture.tokens_drawn)]  # fmt: skip
    there = [(title, counter) for title, counter in columns if sum(counter.values())]
    rows = [(tag("bdi", name), *(f"{counter[name]:,}" for _, counter in there)) for name in order[:200]]
    head = (mixture.column, *(title for title, _ in there))
    caption = f"{named} in numbers" + (f", the first 200 of {len(order):,}" if len(order) > 200 else "")
    return table(head, rows, caption=caption, numeric=range(1, len(head)))
