"""Where Ray puts parts: retried tasks, or for GPU stages a few actors that keep their model."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

from dataforge.pipelines.local_ray import load_ray
from dataforge.pipelines.resources import Resources
from dataforge.pipelines.worker import Order, PartMaker, make_part_here
from dataforge.stage import Part

_SECONDS_TO_STOP = 3.0
"""Python code ends at once; a part inside a long native call is killed after this."""


class Placement(Protocol):
    """Takes parts and gives Ray references to their records."""

    limit: int
    """Most parts under way at once."""

    def submit(self, order: Order, part: Part, wait_s: float) -> Any:
        """Begin a part."""

    def ended(self, reference: Any, *, died: bool) -> None:
        """A part is over; `died` if its process is gone."""

    def stop(self, references: list[Any]) -> None:
        """End the parts that are still under way, and everything this placement holds."""


class Tasks:
    """Each part a task. Ray itself does not retry: it would make a part that takes too much memory again for ever."""

    def __init__(self, needs: Resources, limit: int) -> None:
        self.limit = limit
        self._ray = load_ray()
        self._task = self._ray.remote(max_retries=0, **ray_options(needs))(make_part_here)

    def submit(self, order: Order, part: Part, wait_s: float) -> Any:
        return self._task.options(name=f"{order.folder.parent.name} {part.stem}").remote(order, part, wait_s)

    def ended(self, reference: Any, *, died: bool) -> None:
        pass

    def stop(self, references: list[Any]) -> None:
        for force in (False, True):
            for reference in references:
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._ray.cancel(reference, force=force)
            if not references:
                return
            _, references = self._ray.wait(
                references, num_returns=len(references), timeout=_SECONDS_TO_STOP, fetch_local=False
            )


class Actors:
    """One actor for each GPU's worth, at most one for each part; a dead one is replaced."""

    def __init__(self, needs: Resources, num_parts: int) -> None:
        self._ray = load_ray()
        self._actor = self._ray.remote(max_restarts=0, max_task_retries=0, **ray_options(needs))(PartMaker)
        there = self._ray.cluster_resources().get("GPU", 0.0)
        # A cluster that grows on demand may have no GPU yet: one waiting actor makes it start a node.
        self.limit = max(1, min(num_parts, int(there / needs.num_gpus)))
        self._idle = [self._actor.remote() for _ in range(self.limit)]
        self._busy: dict[Any, Any] = {}

    def submit(self, order: Order, part: Part, wait_s: float) -> Any:
        actor = self._idle.pop()
        reference = actor.make.remote(order, part, wait_s)
        self._busy[reference] = actor
        return reference

    def ended(self, reference: Any, *, died: bool) -> None:
        actor = self._busy.pop(reference)
        if died:
            self._ray.kill(actor)
            actor = self._actor.remote()
        self._idle.append(actor)

    def stop(self, references: list[Any]) -> None:
        for actor in [*self._idle, *self._busy.values()]:
            self._ray.kill(actor)


def ray_options(needs: Resources) -> dict[str, Any]:
    """The options of a task or actor: what it reserves, and as many threads in its libraries as it has CPUs."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    return {
        "num_cpus": needs.num_cpus,
        "memory": needs.memory_bytes,
        "num_gpus": needs.num_gpus,
        "runtime_env": {"env_vars": {name: str(needs.num_threads) for name in names}},
    }
