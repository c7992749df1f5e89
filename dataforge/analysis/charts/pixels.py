"""Heat maps: one pixel a cell, in a PNG inside the SVG, so that a million cells stay small."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from dataforge.analysis.charts.axes import Area, picture, short, ticks
from dataforge.analysis.markup import Html, join, tag

LESS, MORE = (37, 99, 168), (214, 105, 22)


def heat_map(
    values: np.ndarray, *, title: str, groups: Sequence[str], x_low: float, x_high: float, x_label: str, limit: float
) -> Html:
    """Groups of rows over a common horizontal axis; blue below 0, orange above, clear at 0, full at `limit`.

    Args:
        values: shape (groups, rows of a group, columns); NaN is left clear.
        title: for those who cannot see it.
        groups: a name for each group.
        x_low, x_high: values at the two ends of the axis.
        x_label: what the axis is.
        limit: the value drawn in full colour.
    """
    num_groups, rows, _ = values.shape
    gap, row_height = 8, max(1.0, min(9.0, 600 / max(1, num_groups * rows)))
    height = row_height * rows
    area = Area(x_low, x_high, 0, 1, height=round(num_groups * (height + gap) + 64), left=76)
    width = area.width - area.left - area.right
    marks = []
    for index, name in enumerate(groups):
        top = area.top + index * (height + gap)
        data = "data:image/png;base64," + base64.b64encode(png(_colours(values[index] / limit))).decode("ascii")
        box = {"x": area.left, "y": round(top, 1), "width": width, "height": round(height, 1)}
        marks.append(tag("rect", **box, class_="cells"))
        marks.append(tag("image", **box, href=data, preserveAspectRatio="none", class_="cells"))
        marks.append(tag("text", name, x=area.left - 8, y=round(top + height / 2 + 4, 1), class_="tick end"))
    floor = area.top + num_groups * (height + gap)
    for value in ticks(x_low, x_high):
        if x_low <= value <= x_high:
            marks.append(tag("text", short(value), x=area.x(value), y=round(floor + 12, 1), class_="tick middle"))
    marks.append(tag("text", x_label, x=area.left + width / 2, y=area.height - 8, class_="label middle"))
    return join([_scale(limit), picture(area, title, *marks)])


def _scale(limit: float) -> Html:
    steps = [value / 10 for value in range(-10, 11)]
    cells = [tag("i", style=f"background:rgba({','.join(map(str, _rgb(s)))},{abs(s):.2f})") for s in steps]
    ends = (f"{2**-limit:.2g}× the mean", f"{2**limit:.2g}×")
    return tag("p", tag("span", ends[0]), tag("span", *cells, class_="scale", aria_hidden="true"), tag("span", ends[1]),
               class_="legend")  # fmt: skip


def _rgb(value: float) -> tuple[int, int, int]:
    return MORE if value > 0 else LESS


def _colours(values: np.ndarray) -> np.ndarray:
    """uint8 (rows, columns, 4): the side's colour, as opaque as the value is far from 0."""
    near = np.nan_to_num(np.clip(values, -1, 1))
    out = np.empty((*near.shape, 4), dtype=np.uint8)
    out[..., :3] = np.where((near > 0)[..., None], np.array(MORE, np.uint8), np.array(LESS, np.uint8))
    out[..., 3] = np.rint(np.abs(near) * 255).astype(np.uint8)
    return out


def png(rgba: np.ndarray) -> bytes:
    """A PNG file of uint8 pixels, shape (height, width, 4).

    >>> png(np.zeros((1, 1, 4), np.uint8))[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    height, width, _ = rgba.shape
    lines = np.zeros((height, 1 + 4 * width), dtype=np.uint8)  # each line begins with its filter, 0
    lines[:, 1:] = rgba.reshape(height, 4 * width)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
