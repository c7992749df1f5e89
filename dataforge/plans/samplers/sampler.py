"""What a sampler is: sizes in, weights, a cap and a schedule out. The solver and the order do the rest."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dataforge.errors import ConfigError
from dataforge.registry import Registry

Schedule = Literal["progressive", "stationary"]
"""`progressive`: clusters give at their rate until their cap, then the others share what is left of the run.
`stationary`: every stretch of the run has the mixture of the whole."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a sampler asks for."""

    weights_C: NDArray[Any]
    """Relative shares, integers or floats, not negative, shape (C,)."""
    max_repeats: int | None
    """Most times one document may be drawn; None for no limit."""
    schedule: Schedule


Sampler = Callable[..., Mixture]
"""`sampler(sizes_C, *, max_repeats, schedule, ...) -> Mixture`. `sizes_C` are documents (or tokens, for a budget in
tokens) of each cluster; `schedule` is None where the caller leaves it to the sampler. Further keywords are its options.
"""

samplers: Registry[Sampler] = Registry("sampler")


def mixture_of(
    name: str, sizes_C: NDArray[np.int64], *, max_repeats: int | None, schedule: str | None, options: Mapping[str, Any]
) -> Mixture:
    """What the sampler of that name asks for.

    Raises:
        UnknownName: no such sampler.
        ConfigError: it has no such option, or refuses its value.
    """
    sampler = samplers.get(name)
    known = set(inspect.signature(sampler).parameters) - {"sizes_C", "max_repeats", "schedule"}
    for option in options:
        if option not in known:
            hint = f"its options: {', '.join(sorted(known))}" if known else "it has no options of its own"
            raise ConfigError(f"the sampler {name!r} has no option {option!r}", hint=hint)
    if schedule is not None and schedule not in get_args(Schedule):
        raise ConfigError(f"no schedule is called {schedule!r}", hint="use progressive or stationary")
    return sampler(sizes_C, max_repeats=max_repeats, schedule=schedule, **options)
