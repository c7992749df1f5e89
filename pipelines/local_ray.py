"""Joining a Ray, or starting one on this machine: on loopback alone, behind a token, no dashboard, no telemetry."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from dataforge.errors import MissingDependency

_OBJECT_STORE_BYTES = 128 << 20
"""Parts go through files; only what a task is told and tells passes through Ray."""

_TOKEN = secrets.token_hex(32)
"""Ray keeps the first token of a process, so every local Ray of this process has the same."""

_ENVIRONMENT = {
    # By its name a switch for other systems; set to 0, every Ray process listens on 127.0.0.1 instead of all addresses.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Whoever reaches a Ray port may run code: other users of this machine must not.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": _TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
}

_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
"""Settings of `ray.init`: what workers print stays in Ray's own log files."""


def load_ray() -> Any:
    """The module `ray`. Raises MissingDependency."""
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("the package `ray` is not installed", hint="pip install 'dataforge-lm[ray]'") from error
    return ray


def start_local_ray(num_cpus: int | None = None, num_gpus: int | None = None) -> Any:
    """Start a Ray on this machine for this process and return the module `ray`; `ray.shutdown()` stops it.

    If this process is killed, its Ray ends with it; two agents look for it for about a minute first.

    Args:
        num_cpus: CPUs that Ray may give out; None is all of the machine.
        num_gpus: GPUs that Ray may give out; None is all of the machine.
    """
    with _environment(_ENVIRONMENT), _signals_kept():
        ray = load_ray()
        constants = ray._private.ray_constants
        clusters = getattr(constants, "ENABLE_RAY_CLUSTER", None)
        constants.ENABLE_RAY_CLUSTER = False  # the first variable above, where `ray` was imported before
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **_QUIET,
            )
        finally:
            constants.ENABLE_RAY_CLUSTER = clusters
    _say_on_stderr(ray)
    return ray


def join_ray(address: str) -> Any:
    """Join a running cluster and return the module `ray`; `ray.shutdown()` leaves it."""
    ray = load_ray()
    with _signals_kept():
        ray.init(address=address, **_QUIET)
    _say_on_stderr(ray)
    return ray


def _say_on_stderr(ray: Any) -> None:
    """Let what Ray has to say ("a worker died") go to stderr: Ray prints it to stdout, where answers go.

    Ray has no setting for it; where a later version has no such function, its talk stays where it was.
    """
    printing = getattr(ray._private.worker, "print_worker_logs", None)
    if printing is None or getattr(printing, "on_stderr", False):
        return

    def print_worker_logs(data: dict[str, Any], sink: Any, *rest: Any) -> None:
        printing(data, sys.stderr, *rest)

    print_worker_logs.on_stderr = True  # type: ignore[attr-defined]
    ray._private.worker.print_worker_logs = print_worker_logs


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back what SIGTERM does: Ray makes it abort the process with a stack trace, whatever was set before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        # While it starts, Ray's own handler exits with the signal's number: let the one that was there decide.
        if error.code == signal.SIGTERM and callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started in the block, and put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
