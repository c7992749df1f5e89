"""In a Ray worker process: open a stage once, then make its parts one after another."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dataforge.errors import MixedEnvironment, WorkspaceError
from dataforge.runners import environment_of, make_part
from dataforge.stage import Part, Stage


@dataclass(frozen=True)
class Order:
    """What each task is told of its stage. Small: the stage and its inputs are fetched once a process."""

    digest: str
    """Of the pickled stage and inputs."""
    stage: list[Any]
    """One Ray reference to them, in a list so that Ray does not fetch it for every task."""
    folder: Path
    version: str
    """Of dataforge-lm, where the order was given."""
    environment: dict[str, Any] | None
    """What the stage's bytes depend on, where the order was given; None if on nothing, or if mixing was allowed."""


_opened: tuple[str, Stage, Any] | None = None
"""The digest of the last order's stage, the stage, and what its `open_worker` gave. One at a time: a worker process
goes on to the next stage of a recipe, and two models need not fit."""


def make_part_here(order: Order, part: Part, wait_s: float = 0.0) -> dict[str, Any]:
    """Make one part in this process; its sidecar's record.

    Args:
        order: of which stage.
        part: what to make.
        wait_s: seconds to wait first, for a part that failed before.
    Raises:
        WorkspaceError: this node does not see the workspace, or has another dataforge.
        MixedEnvironment: this node would make other bytes than the one that gave the order.
    """
    time.sleep(wait_s)
    stage, worker = _open(order)
    return make_part(stage, worker, part, order.folder)


class PartMaker:
    """The same as an actor, for stages on a GPU: Ray ends a task's process to free the GPU, and with it the model."""

    def make(self, order: Order, part: Part, wait_s: float = 0.0) -> dict[str, Any]:
        return make_part_here(order, part, wait_s)


def _open(order: Order) -> tuple[Stage, Any]:
    global _opened
    if _opened is None or _opened[0] != order.digest:
        import ray

        _opened = None
        _check_node(order)
        stage, inputs = ray.cloudpickle.loads(ray.get(order.stage[0]))
        _check_environment(order, stage)
        _opened = (order.digest, stage, stage.open_worker(inputs))
    return _opened[1], _opened[2]


def _check_node(order: Order) -> None:
    here = version("dataforge-lm")
    if here != order.version:
        raise WorkspaceError(
            f"this Ray node has dataforge-lm {here}, the one that runs the recipe {order.version}",
            where=platform.node(),
            hint="install the same version on every node of the cluster",
        )
    if not order.folder.is_dir():
        raise WorkspaceError(
            "this Ray node does not see the workspace",
            where=f"{platform.node()}:{order.folder}",
            hint="put the workspace and the raw files on a file system that every node mounts at the same path",
        )


def _check_environment(order: Order, stage: Stage) -> None:
    if order.environment is None:
        return
    here = environment_of(stage)
    if here != order.environment:
        raise MixedEnvironment(
            f"this Ray node would make parts with {here}, the run was begun with {order.environment}",
            where=platform.node(),
            hint="run on nodes of one kind, or give --allow-mixed (it is recorded in run.json)",
        )
