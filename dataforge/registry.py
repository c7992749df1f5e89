"""Names to factories: routers, samplers, embedders. Near misses are named, other packages can plug in."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from dataforge.errors import ConfigError, UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """A name space of factories of one subject, for example `routers`.

    A package outside dataforge adds a name by an entry point in the group `dataforge.<subject>`; it is loaded the first
    time a name is asked for that is not built in.

    >>> shapes = Registry[type]("shape")
    >>> @shapes.register("round")
    ... class Round: pass
    >>> shapes.names()
    ['round']
    >>> shapes.get("roud")
    Traceback (most recent call last):
    dataforge.errors.UnknownName: error: no shape is called 'roud'
     hint: did you mean 'round'? known: round
    """

    def __init__(self, subject: str, plural: str | None = None) -> None:
        self.subject = subject
        self._plural = plural or subject + "s"
        self._factories: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a factory to make it known by `name`; a second factory of that name is an error."""

        def add(factory: T) -> T:
            if self._factories.get(name, factory) is not factory:
                raise ConfigError(f"the {self.subject} {name!r} is registered twice", hint="choose another name")
            self._factories[name] = factory
            return factory

        return add

    def get(self, name: str) -> T:
        """The factory called `name`. Raises UnknownName with the nearest names."""
        if name not in self._factories:
            self._load_plugins()
        if name not in self._factories:
            raise unknown(self.subject, name, self.names())
        return self._factories[name]

    def names(self) -> list[str]:
        """All registered names, sorted; plug-ins included."""
        self._load_plugins()
        return sorted(self._factories)

    def _load_plugins(self) -> None:
        for point in entry_points(group=f"dataforge.{self._plural}"):
            if point.name not in self._factories:
                self._factories[point.name] = point.load()


def unknown(subject: str, name: str, known: Iterable[str], *, where: str | None = None) -> UnknownName:
    """The error for a name that is not among `known`, with the nearest one as its hint."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return UnknownName(f"no {subject} is called {name!r}", where=where, hint=f"{guess}known: {', '.join(known)}")
