"""Whatever a corpus holds, it stays text."""

from __future__ import annotations

from html_reader import HOSTILE, Reader
from hypothesis import given
from hypothesis import strategies as st

from dataforge.analysis.markup import Html, escaped, figure, table, tag, visible


@given(st.text(), st.text())
def test_any_text_comes_back_as_text_and_as_an_attribute(text: str, title: str) -> None:
    read = Reader(tag("p", text, title=title))
    assert read.elements == ["p"]
    assert "".join(read.text) == visible(text)
    assert read.attributes == [("title", visible(title))]


@given(st.text())
def test_what_is_visible_hides_nothing(text: str) -> None:
    shown = visible(text)
    assert not set(shown) & {"\x00", "\x1b", "\u202e", "\u200b", "\ufeff", "\u2028", "\x7f"}
    shown.encode("utf-8")  # no lone surrogate is left


def test_a_hostile_cell_opens_no_element_and_no_attribute() -> None:
    page = figure(tag("p", "x"), HOSTILE, table((HOSTILE,), [(HOSTILE,)], caption=HOSTILE))
    read = Reader(page)
    assert not {"script", "img"} & set(read.elements)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert "gpj.exe" in "".join(read.text)
    assert "⟨202E⟩" in page


def test_html_is_taken_as_it_is_and_none_is_left_out() -> None:
    assert tag("p", Html("<b>x</b>"), None, 3) == "<p><b>x</b>3</p>"
    assert escaped(Html("&lt;")) == "&lt;"
