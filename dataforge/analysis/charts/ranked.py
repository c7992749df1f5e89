"""Shares by rank, before and after, as two outlines over one another: how uneven it was, and how even it became."""

from __future__ import annotations

import numpy as np

from dataforge.analysis.charts.axes import Area, frame, legend, picture, ticks
from dataforge.analysis.markup import Html, join, tag

MOST_COLUMNS = 400


def ranked(before: np.ndarray, after: np.ndarray | None, *, title: str, names: tuple[str, str], x_label: str) -> Html:
    """A column for each item, the largest `before` first: filled for `before`, outlined for `after`.

    Of more than 400 items, evenly spaced ranks are drawn.

    Args:
        before: shares between 0 and 1, shape (C,), at least one.
        after: shares of the same items, or None.
        title: for those who cannot see it.
        names: what `before` and `after` are.
        x_label: what the items are.
    """
    order = np.argsort(-before, kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, min(len(order), MOST_COLUMNS)).round().astype(np.int64))
    chosen = order[ranks]
    largest = max(float(before.max()), 0.0 if after is None else float(after.max())) * 100
    y_ticks = ticks(0.0, largest or 1.0)
    area = Area(0.0, float(len(ranks)), 0.0, y_ticks[-1])
    marks = [frame(area, [], y_ticks, x_label=x_label, y_label="share, %")]
    floor = f"L{area.x(len(ranks))} {area.y(0)} L{area.x(0)} {area.y(0)} Z"
    marks.append(
        tag("path", tag("title", names[0]), d=_steps(area, before[chosen] * 100) + floor, class_="area before")
    )
    keys = [(names[0], "dot area before")]
    if after is not None:
        marks.append(tag("path", tag("title", names[1]), d=_steps(area, after[chosen] * 100), class_="line one"))
        keys.append((names[1], "line one"))
    return join([legend(keys), picture(area, title, *marks)])


def _steps(area: Area, values: np.ndarray) -> str:
    points = [(area.x(index + side), area.y(float(value))) for index, value in enumerate(values) for side in (0, 1)]
    return "M" + " L".join(f"{x} {y}" for x, y in points)
