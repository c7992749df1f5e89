"""Kill a child process at its N-th publish point, the way a machine does: SIGKILL, no clean-up."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

from dataforge.workspace import parts


def run_and_kill(work: Callable[..., Any], arguments: tuple[Any, ...], at: int, after: bool) -> bool:
    """Run `work` in a spawned process that kills itself at its `at`-th new file, before or after it appears.

    Returns:
        True if it was killed, False if it ended by itself before reaching that point.
    """
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(work, arguments, at, after))
    process.start()
    process.join(240)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def _child(work: Callable[..., Any], arguments: tuple[Any, ...], at: int, after: bool) -> None:
    seen = 0
    real = parts.publish

    def publish(*given: Any) -> bool:
        nonlocal seen
        if given[1].exists():
            return real(*given)
        seen += 1
        if seen == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        made = real(*given)
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    parts.publish = publish
    work(*arguments)
