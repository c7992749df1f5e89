"""A map: dots of two areas each, before and after, with the names of the largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataforge.analysis.charts.axes import Area, legend, picture
from dataforge.analysis.markup import Html, join, tag

_LARGEST_RADIUS = 30.0
_LETTER = 6.3
_LINE = 13.0


@dataclass(frozen=True)
class Dot:
    """A dot at a place; its disc has the area of `before`, its ring that of `after`."""

    x: float
    y: float
    before: float
    after: float | None
    name: str
    """Written beside the dot if there is room."""
    told: str
    """All there is to say about it."""


def scatter(
    dots: Sequence[Dot],
    *,
    points: np.ndarray,
    title: str,
    before: str,
    after: str | None,
    most_names: int = 28,
) -> Html:
    """A map without axes. Names are written largest first where they cover no other name.

    Args:
        dots: at least one.
        points: small points without a name underneath, float (n, 2).
        title: for those who cannot see it.
        before, after: what disc and ring are; without `after` there are no rings.
        most_names: names to write at most.
    """
    xs = np.concatenate([[dot.x for dot in dots], points[:, 0]])
    ys = np.concatenate([[dot.y for dot in dots], points[:, 1]])
    x_low, x_high, y_low, y_high = (float(edge) for edge in (xs.min(), xs.max(), ys.min(), ys.max()))
    area = Area(x_low, x_high, y_low, y_high, width=820, height=560, left=40, right=40, top=30, bottom=30)
    speck = "".join(f"M{area.x(x)} {area.y(y)}h0" for x, y in points.tolist())
    specks = tag("path", d=speck, class_="specks")
    largest = max(max(dot.before, dot.after or 0.0) for dot in dots) or 1.0
    discs, rings = [], []
    for dot in sorted(dots, key=lambda dot: -dot.before):
        at = {"cx": area.x(dot.x), "cy": area.y(dot.y)}
        told = tag("title", dot.told)
        discs.append(tag("circle", told, **at, r=_radius(dot.before, largest), class_="disc before"))
        if dot.after is not None:
            rings.append(tag("circle", told, **at, r=_radius(dot.after, largest), class_="ring after"))
    keys = [(before, "dot disc before")] + ([(after, "dot ring after")] if after is not None else [])
    names = _names(sorted(dots, key=lambda dot: -max(dot.before, dot.after or 0.0)), area, most_names)
    return join([legend(keys), picture(area, title, specks, *discs, *rings, *names)])


def _radius(share: float, largest: float) -> float:
    return round(max(1.5, _LARGEST_RADIUS * (share / largest) ** 0.5), 1)


def _names(dots: Sequence[Dot], area: Area, most: int) -> list[Html]:
    taken: list[tuple[float, float, float, float]] = []
    written: list[Html] = []
    for dot in dots:
        if len(written) == most:
            break
        half = len(dot.name) * _LETTER / 2
        x = min(max(area.x(dot.x), half + 2), area.width - half - 2)
        for y in (area.y(dot.y) + 4, area.y(dot.y) - 12, area.y(dot.y) + 20):
            box = (x - half, y - _LINE, x + half, y + 4)
            if box[1] > 0 and box[3] < area.height and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                written.append(tag("text", dot.name, x=round(x, 1), y=round(y, 1), class_="name middle"))
                break
    return written


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
