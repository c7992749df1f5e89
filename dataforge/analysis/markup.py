"""HTML that cannot be broken into: whatever is not marked as HTML is escaped, and hidden signs are made visible.

Corpus text is hostile: it may hold tags, control characters, and marks that turn the direction of a line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]"
)
_VOID = frozenset({"meta", "br", "circle", "line", "rect", "path", "polyline", "image", "col"})


class Html(str):
    """Text that is HTML already: `tag` takes it as it is."""

    __slots__ = ()


def visible(text: str) -> str:
    """`text` with every hidden sign shown: control characters as pictures, the others by their number.

    >>> visible("a\\x00b\\u202ec\\n")
    'a␀b⟨202E⟩c\\n'
    """
    return _HIDDEN.sub(lambda found: _shown(found[0]), text)


def _shown(sign: str) -> str:
    code = ord(sign)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨{code:04X}⟩"


def escaped(value: Any) -> Html:
    """Any value as text of a page.

    >>> escaped("<b>&")
    '&lt;b&gt;&amp;'
    """
    return value if isinstance(value, Html) else Html(html.escape(visible(str(value)), quote=True))


def join(children: Iterable[Any]) -> Html:
    """Children one behind the other; None is left out."""
    return Html("".join(escaped(child) for child in children if child is not None))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element. Attributes are escaped; `class_` is `class`, other underscores are hyphens, None is left out.

    >>> tag("a", "1 < 2", href="#x", class_="k", title=None)
    '<a href="#x" class="k">1 &lt; 2</a>'
    """
    told = "".join(f' {_attribute(key)}="{escaped(value)}"' for key, value in attributes.items() if value is not None)
    if name in _VOID and not children:
        return Html(f"<{name}{told}/>")
    return Html(f"<{name}{told}>{join(children)}</{name}>")


def _attribute(key: str) -> str:
    return key if key in ("viewBox", "preserveAspectRatio") else key.rstrip("_").replace("_", "-")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str, numeric: Sequence[int] = ()) -> Html:
    """A table that scrolls sideways on a narrow screen.

    Args:
        head: column titles.
        rows: cells; the first of a row is its title.
        caption: what it shows, also for those who cannot see it.
        numeric: indices of columns of numbers, set flush right.
    """

    def kind(index: int) -> str | None:
        return "n" if index in numeric else None

    titles = [tag("th", title, scope="col", class_=kind(index)) for index, title in enumerate(head)]
    body = []
    for row in rows:
        first, *rest = row
        cells = [tag("td", cell, class_=kind(index)) for index, cell in enumerate(rest, 1)]
        body.append(tag("tr", tag("th", first, scope="row", class_=kind(0)), *cells))
    inner = tag("table", tag("caption", caption), tag("thead", tag("tr", *titles)), tag("tbody", *body))
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def figure(picture: Html, caption: Any, numbers: Html | None = None) -> Html:
    """A picture with its caption and, folded away, the numbers it was drawn from."""
    folded = None if numbers is None else tag("details", tag("summary", "the numbers"), numbers)
    return tag("figure", picture, tag("figcaption", caption), folded)
