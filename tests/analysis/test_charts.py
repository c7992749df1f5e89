"""Charts: round ticks that hold the values, well-formed SVG, pixels that say what the numbers say."""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dataforge.analysis.charts import Dot, Level, Pair, Series, heat_map, lines, paired_bars, ranked, scatter
from dataforge.analysis.charts.axes import Area, ticks
from dataforge.analysis.charts.lines import MOST_POINTS
from dataforge.analysis.charts.pixels import png


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{markup}</div>")


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(3, 9))
def test_ticks_hold_the_values_and_are_few(low: float, span: float, most: int) -> None:
    high = low + span
    assume(span > 1e-6 * abs(low))  # closer than that, axes have no digits left to tell ticks apart
    found = ticks(low, high, most)
    step = found[1] - found[0]
    assert found[0] <= low + 1e-6 * max(step, abs(low))
    assert found[-1] >= high - 1e-6 * max(step, abs(high))
    assert 2 <= len(found) <= most + 1
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9)) in (1, 2, 5, 10)


def test_a_curve_lies_inside_its_area_and_levels_are_drawn() -> None:
    x = np.arange(1.0, 51.0)
    drawn = lines(
        [Series("a <b>", x, np.sqrt(x), "one"), Series("few", x[::25], x[::25] / 10, "two", dots=True)],
        title='"quoted"',
        x_label="step",
        y_label="loss",
        levels=[Level("unigram", 9.5, "three")],
    )
    root = parsed(drawn)
    area = Area(0, 1, 0, 1)
    numbers = [float(n) for path in root.iter("path") for n in re.findall(r"[\d.]+", path.get("d") or "")]
    assert min(numbers) >= 0
    assert max(numbers) <= area.width
    assert len(list(root.iter("circle"))) == 2
    assert "unigram" in "".join(root.itertext())
    assert [svg.get("aria-label") for svg in root.iter("svg") if svg.get("role") == "img"] == ['"quoted"']


def test_a_long_curve_is_thinned_to_means_that_keep_its_sum() -> None:
    y = np.random.default_rng(0).normal(size=10_000)
    drawn = lines([Series("long", np.arange(10_000.0), y, "one")], title="t", x_label="x", y_label="y")
    (path,) = parsed(drawn).iter("path")
    assert path.get("d", "").count("L") == MOST_POINTS - 1


def test_curves_of_one_point_of_gaps_and_of_nothing() -> None:
    one = Series("one", np.array([3.0]), np.array([2.0]), "one")
    assert len(list(parsed(lines([one], title="t", x_label="x", y_label="y")).iter("circle"))) == 1
    gap = Series("gap", np.arange(3.0), np.array([1.0, np.nan, 2.0]), "one")
    assert "nan" not in lines([gap], title="t", x_label="x", y_label="y")
    with pytest.raises(ValueError, match="needs a point"):
        lines([Series("none", np.zeros(0), np.zeros(0), "one")], title="t", x_label="x", y_label="y")


def test_a_png_holds_the_pixels_that_were_given() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 4)).astype(np.uint8)
    data = png(pixels)
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(name + body)
        chunks[name] = body
        at += 12 + size
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (7, 5, 8, 6, 0, 0, 0)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(5, 1 + 7 * 4)
    assert not rows[:, 0].any()
    np.testing.assert_array_equal(rows[:, 1:].reshape(5, 7, 4), pixels)


def test_a_heat_map_has_a_picture_for_each_group_and_no_outside_one() -> None:
    values = np.linspace(-3, 3, 2 * 4 * 6).reshape(2, 4, 6)
    values[0, 0, 0] = np.nan
    root = parsed(heat_map(values, title="load", groups=["a", "b"], x_low=0, x_high=6, x_label="step", limit=1.0))
    hrefs = [image.get("href") or "" for image in root.iter("image")]
    assert len(hrefs) == 2
    assert all(href.startswith("data:image/png;base64,") for href in hrefs)
    assert base64.b64decode(hrefs[0].partition(",")[2])[:4] == b"\x89PNG"


def test_bars_have_widths_in_proportion_to_the_largest() -> None:
    root = parsed(paired_bars([Pair("a", 0.5, 0.25), Pair("b", 0.1, 0.0)], title="t", before="there", after="drawn"))
    widths = [i.get("style") for i in root.iter("i") if "bar" in (i.get("class") or "").split()]
    assert widths == ["width:100.00%", "width:50.00%", "width:20.00%", "width:0.00%"]


def test_ranked_columns_and_maps_are_well_formed_and_never_write_one_name_over_another() -> None:
    before = np.array([0.5, 0.2, 0.3])
    assert len(list(parsed(ranked(before, before[::-1], title="t", names=("a", "b"), x_label="c")).iter("path"))) == 2
    rng = np.random.default_rng(2)
    dots = [Dot(*rng.normal(size=2), 0.1, 0.2, f"cluster {i}", f"told {i}") for i in range(60)]
    root = parsed(scatter(dots, points=rng.normal(size=(50, 2)), title="map", before="a", after="b", most_names=40))
    names = [t for t in root.iter("text") if "name" in (t.get("class") or "")]
    assert 5 < len(names) <= 40
    places = [(float(t.get("x") or 0), float(t.get("y") or 0)) for t in names]
    assert all(abs(x - u) > 40 or abs(y - v) > 12 for i, (x, y) in enumerate(places) for u, v in places[:i])
