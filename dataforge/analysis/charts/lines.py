"""Curves over the steps of a run, and levels to hold them against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataforge.analysis.charts.axes import Area, frame, legend, picture, short, ticks
from dataforge.analysis.markup import Html, join, tag

MOST_POINTS = 400


@dataclass(frozen=True)
class Series:
    """One curve. `style` is a CSS class, `one` to `four`."""

    name: str
    x: np.ndarray
    y: np.ndarray
    style: str
    dots: bool = False
    """Mark each point: for curves of few points."""


@dataclass(frozen=True)
class Level:
    """A value to hold a curve against, drawn across."""

    name: str
    y: float
    style: str


def lines(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    levels: Sequence[Level] = (),
    floor: float | None = None,
) -> Html:
    """A line chart with its legend. Curves of more than 400 points are drawn as means of equal stretches.

    Args:
        series: curves, x ascending.
        title: for those who cannot see it.
        x_label, y_label: what the axes are.
        levels: values drawn across.
        floor: where the vertical axis begins; None is just below the lowest value.
    Raises:
        ValueError: there is no point.
    """
    drawn = [_thinned(curve) for curve in series if len(curve.x)]
    if not drawn:
        raise ValueError("a line chart needs a point")
    values = np.concatenate([*(curve.y for curve in drawn), [level.y for level in levels]])
    values = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
    y_ticks = ticks(float(values.min()) if floor is None else floor, float(values.max()))
    x_low = min(0.0, *(float(curve.x[0]) for curve in drawn))
    x_high = max(float(curve.x[-1]) for curve in drawn)
    area = Area(x_low, x_high if x_high > x_low else x_low + 1, y_ticks[0], y_ticks[-1])
    marks = [frame(area, ticks(area.x_low, area.x_high), y_ticks, x_label=x_label, y_label=y_label)]
    for level in levels:
        y, edge = area.y(level.y), area.width - area.right
        line = tag("line", tag("title", f"{level.name}: {level.y:.4g}"), x1=area.left, x2=edge, y1=y, y2=y,
                   class_=f"line dashed {level.style}")  # fmt: skip
        told = tag("text", short(round(level.y, 3)), x=edge - 2, y=y - 5, class_="tick end")
        marks += [line, told]
    marks += [_curve(area, curve) for curve in drawn]
    entries = [(curve.name, f"line {curve.style}") for curve in drawn]
    entries += [(level.name, f"line dashed {level.style}") for level in levels]
    return join([legend(entries), picture(area, title, *marks)])


def _curve(area: Area, curve: Series) -> Html:
    points = [(area.x(float(x)), area.y(float(y))) for x, y in zip(curve.x, curve.y, strict=True) if np.isfinite(y)]
    told = f"{curve.name}: from {curve.y[0]:.4g} to {curve.y[-1]:.4g}"
    path = "M" + " L".join(f"{x} {y}" for x, y in points)
    marks = [tag("path", tag("title", told), d=path, class_=f"line {curve.style}")] if len(points) > 1 else []
    if curve.dots or len(points) == 1:
        for (x, y), at, value in zip(points, curve.x, curve.y):
            marks.append(tag("circle", tag("title", f"{short(float(at))}: {value:.4g}"), cx=x, cy=y, r=4,
                             class_=f"dot {curve.style}"))  # fmt: skip
    return join(marks)


def _thinned(curve: Series) -> Series:
    if len(curve.x) <= MOST_POINTS:
        return curve
    edges = np.linspace(0, len(curve.x), MOST_POINTS + 1).astype(np.int64)
    sizes = np.diff(edges)
    x = np.add.reduceat(np.asarray(curve.x, np.float64), edges[:-1]) / sizes
    y = np.add.reduceat(np.asarray(curve.y, np.float64), edges[:-1]) / sizes
    return Series(curve.name, x, y, curve.style, curve.dots)
