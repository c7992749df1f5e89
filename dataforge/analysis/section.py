"""A section of a report, and what every section is made from."""

from __future__ import annotations

from dataclasses import dataclass

from dataforge.analysis.markup import Html, tag


@dataclass(frozen=True)
class Section:
    """One section. Without a body it is not there, and `missing` says why."""

    anchor: str
    """Its place in the page, `clusters`."""
    title: str
    body: Html | None
    missing: str | None = None

    def html(self) -> Html:
        inner = self.body if self.body is not None else tag("p", f"Not there: {self.missing}", class_="missing")
        head = tag("h2", self.title, id=f"{self.anchor}-title")
        return tag("section", head, inner, id=self.anchor, aria_labelledby=f"{self.anchor}-title")
