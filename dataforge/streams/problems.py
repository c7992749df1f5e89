"""A stated error as an RFC 9457 problem and back, so that a client raises what the server raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dataforge.errors import DataforgeError, StreamError

_MAX_TEXT = 2000


def problem_of(error: DataforgeError) -> dict[str, Any]:
    """The problem document of an error.

    >>> from dataforge.errors import PastTheEnd
    >>> problem_of(PastTheEnd("there is no row 9"))
    {'type': '/problems/past-the-end', 'status': 422, 'title': 'Past the end', 'detail': 'there is no row 9'}
    """
    slug = error.slug()
    told = {"type": f"/problems/{slug}", "status": error.status, "title": slug.replace("-", " ").capitalize()}
    texts = {"detail": error.what, "artifact": error.where, "hint": error.hint}
    return told | {name: text[:_MAX_TEXT] for name, text in texts.items() if text}


def error_of(problem: Any, where: str, status: int | None = None) -> DataforgeError:
    """The error of a problem document that came from `where`; a StreamError if its type is not known here."""
    if not isinstance(problem, Mapping):
        problem = {}
    known = {cls.slug(): cls for cls in _classes(DataforgeError)}
    slug = str(problem.get("type", "")).rpartition("/")[2]
    what = str(problem.get("detail") or problem.get("title") or f"the server answered with status {status}")[:_MAX_TEXT]
    artifact, hint = problem.get("artifact"), problem.get("hint")
    place = f"{where} ({str(artifact)[:200]})" if artifact else where
    return known.get(slug, StreamError)(what, where=place, hint=str(hint)[:_MAX_TEXT] if hint else None)


def _classes(cls: type[DataforgeError]) -> Iterator[type[DataforgeError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _classes(child)
