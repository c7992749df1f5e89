"""Cluster sizes before and after balancing: what there is of each cluster, and what the plan draws of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dataforge.analysis.chain import Chain
from dataforge.analysis.charts import Pair, paired_bars, ranked
from dataforge.analysis.markup import Html, figure, join, table, tag
from dataforge.analysis.section import Section

FIRST_ROWS = 16
MOST_ROWS = 64
MOST_IN_TABLE = 1000
_MOST_KEYWORDS = 6


@dataclass(frozen=True)
class Balance:
    """Per-cluster amounts, shape (C,). Without a plan there are only sizes."""

    sizes_C: np.ndarray
    """Documents that may be trained on."""
    draws_C: np.ndarray | None
    tokens_C: np.ndarray | None
    """Tokens there are, where the plan was told lengths."""
    tokens_drawn_C: np.ndarray | None
    """Draws times the mean length."""
    unit: str
    """What the plan shares out: `documents` or `tokens`."""
    clipped_C: np.ndarray | None
    """Clusters that their cap holds back."""

    @property
    def before(self) -> np.ndarray:
        """Each cluster's share of what there is, in the plan's unit."""
        amounts = self.tokens_C if self.unit == "tokens" and self.tokens_C is not None else self.sizes_C
        return amounts / max(1, amounts.sum())

    @property
    def after(self) -> np.ndarray | None:
        """Each cluster's share of what is drawn, in the plan's unit."""
        amounts = self.tokens_drawn_C if self.unit == "tokens" else self.draws_C
        return None if amounts is None else amounts / max(1, amounts.sum())


def balance(chain: Chain) -> Balance | None:
    """Cluster sizes and draws, or None if the chain has neither plan nor clusters."""
    plan_artifact, clusters = chain.one("plans"), chain.one("clusters")
    if plan_artifact is not None:
        from dataforge.plans import SamplingPlan

        plan = SamplingPlan.open(plan_artifact)
        tokens_C = plan.tokens_C
        drawn_C = None if tokens_C is None else plan.draws_per_cluster * tokens_C / np.maximum(plan.sizes_C, 1)
        unit = "tokens" if plan.unit == "tokens" and tokens_C is not None else "documents"
        return Balance(plan.sizes_C, plan.draws_per_cluster, tokens_C, drawn_C, unit, plan.clipped_C)
    if clusters is None:
        return None
    from dataforge.clusters import read_sizes

    return Balance(read_sizes(clusters), None, None, None, "documents", None)


def effective(shares: np.ndarray) -> float:
    """exp of the entropy: how many equal clusters would be as even.

    >>> round(effective(np.array([0.25, 0.25, 0.25, 0.25, 0.0])), 6)
    4.0
    """
    held = shares[shares > 0]
    return float(np.exp(-(held * np.log(held)).sum()))


def explained(chain: Chain) -> dict[int, dict[str, Any]]:
    """Cluster -> keywords, sources, place on the map; empty without explanations."""
    artifact = chain.one("explanations")
    if artifact is None:
        return {}
    from dataforge.clusters import read_explanations

    return {row["cluster"]: row for row in read_explanations(artifact)}


def section(chain: Chain) -> Section:
    """How even it was and is at a glance, then a row for each cluster: keywords, and its share before and after."""
    told = balance(chain)
    if told is None:
        return Section("clusters", "Clusters", None, "there are neither clusters nor a plan in this chain.")
    about = explained(chain)
    order = np.argsort(-told.before, kind="stable")
    order = order[told.sizes_C[order] > 0]
    without = tag("p", "Keywords are not there: these clusters have no explanations.", class_="missing")
    parts = [_lead(told), None if about else without, tag("div", *_overviews(told), class_="two")]
    parts.append(_rows(told, order[:FIRST_ROWS], about))
    if len(order) > FIRST_ROWS:
        rest = order[FIRST_ROWS:MOST_ROWS]
        parts.append(tag("details", tag("summary", f"the next {len(rest):,} clusters"), _rows(told, rest, about)))
    parts += [tag("p", _caption(told, len(order)), class_="soft"), _numbers(told, order, about)]
    return Section("clusters", "Clusters before and after balancing", join(parts))


def _overviews(told: Balance) -> list[Html]:
    """By what the plan shares out, and, if that is tokens, also by documents and draws."""
    held = told.sizes_C > 0
    told_of = [(told.unit, told.before, told.after)]
    if told.unit == "tokens" and told.draws_C is not None:
        told_of.append(("documents", told.sizes_C / told.sizes_C.sum(), told.draws_C / told.draws_C.sum()))
    figures = []
    for unit, before, after in told_of:
        drawn = "draws" if unit == "documents" else f"{unit} drawn"
        picture = ranked(
            before[held],
            None if after is None else after[held],
            title=f"Share of {unit} by cluster, before and after balancing",
            names=(f"{unit} there are", drawn),
            x_label=f"{int(held.sum()):,} clusters, the one with most {unit} first",
        )
        figures.append(figure(picture, f"Share of {unit} by cluster."))
    return figures


def keywords(row: dict[str, Any] | None, most: int = _MOST_KEYWORDS) -> Html:
    """The words that tell a cluster from the others."""
    words = row["keywords"][:most] if row else []
    return tag("bdi", ", ".join(words) if words else "no keywords", class_=None if words else "soft")


def _rows(told: Balance, clusters: np.ndarray, about: dict[int, dict[str, Any]]) -> Html:
    pairs, after = [], told.after
    scale = float(max(told.before.max(), 0.0 if after is None else after.max()))
    for cluster in clusters.tolist():
        note = f"{told.sizes_C[cluster]:,} documents"
        if told.draws_C is not None:
            note += f", {told.draws_C[cluster]:,} draws"
            note += ", clipped" if told.clipped_C is not None and told.clipped_C[cluster] else ""
        name = join([tag("b", f"{cluster} "), keywords(about.get(cluster))])
        pairs.append(Pair(name, float(told.before[cluster]), None if after is None else float(after[cluster]), note))
    return paired_bars(
        pairs,
        title="Clusters by share, before and after balancing",
        before=f"{told.unit} there are",
        after=None if after is None else f"{told.unit} drawn",
        full=scale,
    )


def _lead(told: Balance) -> Html:
    before = effective(told.before)
    if told.after is None:
        return tag("p", f"As even as {before:.1f} equal clusters would be. No plan balances them in this chain.")
    return tag(
        "p",
        f"What there is, is as even as {before:.1f} equal clusters would be; what is drawn, as "
        f"{effective(told.after):.1f} (exp of the entropy of the shares of {told.unit}).",
    )


def _caption(told: Balance, there: int) -> str:
    caption = "The largest clusters first. Held-out documents belong to no cluster."
    if there > MOST_ROWS:
        rest = np.sort(told.before)[::-1][MOST_ROWS:].sum()
        caption += f" {there - MOST_ROWS:,} smaller clusters with {rest:.1%} of the {told.unit} are in the table alone."
    empty = int((told.sizes_C == 0).sum())
    if empty:
        caption += f" {empty:,} clusters are empty."
    if told.clipped_C is not None and told.clipped_C.any():
        caption += (
            f" {int(told.clipped_C.sum()):,} are clipped: they would give more if documents could be repeated more."
        )
    return caption


def _numbers(told: Balance, order: np.ndarray, about: dict[int, dict[str, Any]]) -> Html:
    columns = [("documents", told.sizes_C), ("draws", told.draws_C), ("tokens", told.tokens_C),
               ("tokens drawn", told.tokens_drawn_C)]  # fmt: skip
    there = [(name, values) for name, values in columns if values is not None]
    rows = []
    for cluster in order[:MOST_IN_TABLE].tolist():
        row = about.get(cluster)
        mix = list(zip(row["sources"], row["source_documents"], strict=True))[:3] if row else []
        sources = ", ".join(f"{source or '(none)'} {count:,}" for source, count in mix)
        amounts = [f"{round(float(values[cluster])):,}" for _, values in there]
        rows.append((cluster, *amounts, keywords(row, 10), tag("bdi", sources or "–")))
    head = ("cluster", *(name for name, _ in there), "keywords", "largest sources")
    caption = "Clusters in numbers" + (f", the first {MOST_IN_TABLE:,}" if len(order) > MOST_IN_TABLE else "")
    numbers = table(head, rows, caption=caption, numeric=range(1, 1 + len(there)))
    return tag("details", tag("summary", "the numbers"), numbers)
