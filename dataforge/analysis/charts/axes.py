"""What charts with axes share: their area, ticks at round numbers, and the frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dataforge.analysis.markup import Html, join, tag


@dataclass(frozen=True)
class Area:
    """The plot's area in a picture, and the values at its edges."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: int = 520
    height: int = 300
    left: int = 60
    right: int = 14
    top: int = 12
    bottom: int = 44

    def x(self, value: float) -> float:
        """Where a value stands from the left."""
        span = (self.x_high - self.x_low) or 1.0
        return round(self.left + (value - self.x_low) / span * (self.width - self.left - self.right), 1)

    def y(self, value: float) -> float:
        """Where a value stands from the top."""
        span = (self.y_high - self.y_low) or 1.0
        room = self.height - self.top - self.bottom
        return round(self.height - self.bottom - (value - self.y_low) / span * room, 1)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, `most` + 1 at most.

    >>> ticks(0, 230), ticks(2.1, 2.9, 4)
    ([0.0, 50.0, 100.0, 150.0, 200.0, 250.0], [2.0, 2.5, 3.0])
    """
    span = high - low
    if not span > 0:
        return [low - 0.5, low + 0.5]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(times * power for times in (1, 2, 5, 10, 20) if span / (times * power) <= most - 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis.

    >>> [short(value) for value in (0.25, 3.0, 5_000, 12_000, 2_500_000)]
    ['0.25', '3', '5k', '12k', '2.5M']
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.6g}"


def frame(area: Area, x_ticks: list[float], y_ticks: list[float], *, x_label: str, y_label: str) -> Html:
    """Grid lines, tick texts and axis titles."""
    marks = []
    floor, edge = area.height - area.bottom, area.width - area.right
    for value in y_ticks:
        y = area.y(value)
        marks.append(tag("line", x1=area.left, x2=edge, y1=y, y2=y, class_="grid"))
        marks.append(tag("text", short(value), x=area.left - 8, y=y + 4, class_="tick end"))
    for value in x_ticks:
        if area.x_low <= value <= area.x_high:
            marks.append(tag("text", short(value), x=area.x(value), y=floor + 18, class_="tick middle"))
    marks.append(tag("text", x_label, x=(area.left + edge) / 2, y=area.height - 6, class_="label middle"))
    middle = (area.top + floor) / 2
    marks.append(tag("text", y_label, x=12, y=middle, class_="label middle", transform=f"rotate(-90 12 {middle})"))
    return join(marks)


def picture(area: Area, title: str, *marks: Html) -> Html:
    """An SVG as wide as its place, with a text for those who cannot see it."""
    view = f"0 0 {area.width} {area.height}"
    return tag("svg", *marks, viewBox=view, role="img", aria_label=title, class_="chart")


def legend(entries: list[tuple[str, str]]) -> Html:
    """(name, CSS classes of its line or dot) for each mark of a chart."""
    told = []
    for name, classes in entries:
        if "dot" in classes.split():
            swatch = tag("circle", cx=13, cy=6, r=5, class_=classes)
        else:
            swatch = tag("line", x1=1, x2=25, y1=6, y2=6, class_=classes)
        told.append(tag("span", tag("svg", swatch, viewBox="0 0 26 12", class_="swatch", aria_hidden="true"), name))
    return tag("p", *told, class_="legend")
