"""Before and after, side by side, as rows of HTML that a narrow screen can break."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dataforge.analysis.markup import Html, tag


@dataclass(frozen=True)
class Pair:
    """One row: a share before and a share after, between 0 and 1."""

    name: Any
    """What the row is; HTML is taken as it is."""
    before: float
    after: float | None
    note: Any = None
    """A line under the name."""


def paired_bars(
    pairs: Sequence[Pair],
    *,
    title: str,
    before: str,
    after: str | None,
    value: Callable[[float], str] = "{:.1%}".format,
    full: float | None = None,
) -> Html:
    """A list of rows with a bar for `before` and one for `after`, on one scale.

    Args:
        pairs: rows, in the order shown.
        title: for those who cannot see it.
        before, after: what the two bars are; without `after` there is one bar a row.
        value: what is written behind a bar.
        full: the share of a bar of full width; None is the largest of these rows.
    """
    largest = full or max([p.before for p in pairs] + [p.after or 0.0 for p in pairs], default=0.0) or 1.0
    keys = [tag("span", tag("i", class_="key before", aria_hidden="true"), before)]
    if after is not None:
        keys.append(tag("span", tag("i", class_="key after", aria_hidden="true"), after))
    rows = []
    for pair in pairs:
        bars = [_bar("before", pair.before, largest, before, value)]
        if after is not None:
            bars.append(_bar("after", pair.after or 0.0, largest, after, value))
        note = None if pair.note is None else tag("small", pair.note)
        rows.append(tag("li", tag("div", pair.name, note, class_="name"), tag("div", *bars, class_="bars")))
    return tag("div", tag("p", *keys, class_="legend"), tag("ul", *rows, class_="pairs", aria_label=title))


def _bar(kind: str, share: float, largest: float, told: str, value: Callable[[float], str]) -> Html:
    fill = tag("i", class_=f"bar {kind}", style=f"width:{100 * share / largest:.2f}%", aria_hidden="true")
    return tag("div", tag("span", fill, class_="track"), tag("span", value(share), title=told), class_="bar-row")
