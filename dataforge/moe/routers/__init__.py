"""Routers, one paper a file, by name. `names()` lists them, `make(name, config)` builds one.

A router of another package joins through an entry point in the group `dataforge.routers`.
"""

from __future__ import annotations

from dataforge.moe.routers.router import ROUTERS, RouteInput, Router, RouterConfig, make
from dataforge.moe.routers.switch import SwitchOptions, SwitchRouter
from dataforge.moe.routers.top_k import TopKOptions, TopKRouter

register = ROUTERS.register


def names() -> list[str]:
    """All registered routers, sorted.

    >>> names()
    ['switch', 'top_k']
    """
    return ROUTERS.names()


__all__ = [
    "RouteInput",
    "Router",
    "RouterConfig",
    "SwitchOptions",
    "SwitchRouter",
    "TopKOptions",
    "TopKRouter",
    "make",
    "names",
    "register",
]
