"""A stage's parts on Ray: made by the same `make_part`, so ids and content are those of a run without it.

The workspace and the raw files must lie on a file system that every Ray node mounts at the same path; `finish`, which
needs all parts, runs where the runner is.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from dataforge.errors import ConfigError, WorkspaceError
from dataforge.pipelines.local_ray import join_ray, load_ray, start_local_ray
from dataforge.pipelines.placement import Actors, Placement, Tasks
from dataforge.pipelines.resources import Resources, resources_for
from dataforge.pipelines.worker import Order
from dataforge.runners import environment_of
from dataforge.stage import Inputs, Part, Stage

_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "EAGAIN", "EINTR", "EBUSY", "ETIMEDOUT", "EREMOTEIO"),
        *("ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ENETDOWN", "ENETRESET", "ENETUNREACH"),
    )
    if hasattr(errno, name)
)
"""Errors of the operating system that may pass: those of disks and networks. A full disk or a missing file does not."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Try:
    part: Part
    failures: int = 0


class RayRunner:
    """Runs parts as Ray tasks, those of a stage that computes on a GPU in actors. Give it to `Run(runner=...)`.

    A part is made again when its process or node dies, or the operating system reports an error that may pass; an error
    that dataforge states is raised at once, as itself. Finished parts stay in every case. Use it as a context manager,
    or call `close`, to stop what it started.

    Args:
        address: a Ray cluster ("host:port", or "auto" for the one this machine belongs to). None starts a Ray of its
            own on this machine, on the loopback address; a Ray that this process already uses is taken as it is.
        num_cpus: CPUs of one part; None is what `resources.BY_KIND` says for the kind.
        memory_bytes: memory reserved for one part; None is what `resources.BY_KIND` says.
        num_gpus: GPUs of one actor of a GPU stage.
        max_in_flight: most parts given to Ray at once; memory in this process and the demand that a growing cluster
            sees are bounded by it.
        max_retries: times one part is made again.
        retry_wait_s: seconds before the first of these, doubled each time.
        patience_s: seconds to wait for a node that is large enough for a part, on a cluster that may still grow.
        allow_mixed: let parts be made on another device class or library version than this process has.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        num_cpus: float | None = None,
        memory_bytes: int | None = None,
        num_gpus: float = 1.0,
        max_in_flight: int = 512,
        max_retries: int = 3,
        retry_wait_s: float = 1.0,
        patience_s: float = 600.0,
        allow_mixed: bool = False,
    ) -> None:
        if max_in_flight < 1 or max_retries < 0 or retry_wait_s < 0 or patience_s < 0 or num_gpus <= 0:
            raise ConfigError(
                f"max_in_flight must be at least 1, num_gpus above 0 and the others not negative, "
                f"got {max_in_flight=}, {num_gpus=}, {max_retries=}, {retry_wait_s=}, {patience_s=}"
            )
        self.address = address
        self.num_cpus, self.memory_bytes, self.num_gpus = num_cpus, memory_bytes, num_gpus
        self.max_in_flight, self.max_retries, self.retry_wait_s = max_in_flight, max_retries, retry_wait_s
        self.patience_s, self.allow_mixed = patience_s, allow_mixed
        self._ours = False
        self._local = False

    def __enter__(self) -> RayRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the Ray that this runner started, or leave the cluster that it joined. Others' is left alone."""
        if self._ours:
            self._ours = False
            load_ray().shutdown()

    def run(
        self,
        stage: Stage,
        inputs: Inputs,
        folder: Path,
        missing: Sequence[Part],
        done: Callable[[dict[str, Any]], None],
    ) -> None:
        """Make the missing parts.

        Raises:
            DataforgeError: whatever a part raised, as itself.
            WorkspaceError: a part failed `max_retries + 1` times, or no node is large enough for one.
            ConfigError: no Ray answers at the address.
        """
        ray = self._connect()
        needs = resources_for(stage, self.num_cpus, self.memory_bytes, self.num_gpus)
        sealed = ray.cloudpickle.dumps((stage, dict(inputs)))
        order = Order(
            digest=hashlib.blake2b(sealed, digest_size=16).hexdigest(),
            stage=[ray.put(sealed)],
            folder=folder,
            version=version("dataforge-lm"),
            environment=None if self.allow_mixed else environment_of(stage),
        )
        if self._local:
            self._refuse_if_none_fits(ray, needs, where=f"{folder.parent.name}/{folder.name}")
        placement = Actors(needs, len(missing)) if needs.num_gpus else Tasks(needs, self.max_in_flight)
        self._run(ray, placement, order, needs, missing, done)

    def _run(
        self,
        ray: Any,
        placement: Placement,
        order: Order,
        needs: Resources,
        missing: Sequence[Part],
        done: Callable[[dict[str, Any]], None],
    ) -> None:
        where = f"{order.folder.parent.name}/{order.folder.name}"
        waiting = deque(_Try(part) for part in missing)
        under_way: dict[Any, _Try] = {}
        began, any_ended = time.monotonic(), False
        try:
            while waiting or under_way:
                while waiting and len(under_way) < placement.limit:
                    one = waiting.popleft()
                    wait_s = self.retry_wait_s * 2 ** (one.failures - 1) if one.failures else 0.0
                    under_way[placement.submit(order, one.part, wait_s)] = one
                ended, _ = ray.wait(list(under_way), timeout=min(5.0, max(0.1, self.patience_s)))
                if not ended and not any_ended and time.monotonic() - began > self.patience_s:
                    self._refuse_if_none_fits(ray, needs, where)
                for reference in ended:
                    any_ended = True
                    one = under_way.pop(reference)
                    failure = self._end(ray, placement, reference, done, where)
                    if failure is None:
                        continue
                    if one.failures == self.max_retries:
                        raise self._gave_up(one, failure, where) from failure
                    _log.warning("%s %s: %s; it is made again", where, one.part.name, _told(failure))
                    waiting.appendleft(_Try(one.part, one.failures + 1))
        finally:
            placement.stop(list(under_way))

    def _end(
        self, ray: Any, placement: Placement, reference: Any, done: Callable[[dict[str, Any]], None], where: str
    ) -> Exception | None:
        """Take over a part that ended. Returns why it should be made again, None if it was made."""
        errors = ray.exceptions
        try:
            record = ray.get(reference)
        except errors.RayTaskError as error:
            placement.ended(reference, died=False)
            cause = error.cause
            if isinstance(cause, OSError) and cause.errno in _PASSING:
                return cause
            raise (cause if isinstance(cause, Exception) else error) from error
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
            errors.RayActorError,
        ) as error:
            placement.ended(reference, died=True)
            return error
        except errors.RayError as error:
            raise WorkspaceError(
                f"Ray could not run a part: {_told(error)}",
                where=where,
                hint="finished parts are kept; the logs of Ray say more (docs/ray.md)",
            ) from error
        placement.ended(reference, died=False)
        done(record)
        return None

    def _connect(self) -> Any:
        loaded = sys.modules.get("ray")
        if loaded is not None and loaded.is_initialized():
            return loaded
        if self.address is None:
            ray = start_local_ray()
            self._ours = self._local = True
            return ray
        try:
            ray = join_ray(self.address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"no Ray cluster can be joined: {_told(error)}",
                where=self.address,
                hint="give the address of a running cluster, or leave it out to start a Ray on this machine",
            ) from error
        self._ours = True
        return ray

    def _refuse_if_none_fits(self, ray: Any, needs: Resources, where: str) -> None:
        asked = {"CPU": needs.num_cpus, "memory": needs.memory_bytes, "GPU": needs.num_gpus}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes):
            return
        largest: dict[str, float] = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("memory", 0)), default={})
        raise WorkspaceError(
            f"no Ray node can hold one part: it asks for {_spoken(asked)}; the largest of {len(nodes):,} nodes has "
            f"{_spoken(largest)}",
            where=where,
            hint="ask for less (`memory_bytes`, `num_cpus`), or join a larger cluster",
        )

    def _gave_up(self, one: _Try, failure: Exception, where: str) -> WorkspaceError:
        memory = type(failure).__name__ == "OutOfMemoryError"
        return WorkspaceError(
            f"{one.part.name} failed {one.failures + 1:,} times: {_told(failure)}",
            where=where,
            hint="finished parts are kept: run the same command again"
            + (", with more memory a part" if memory else "; if memory ran out, with more of it a part"),
        )


def _told(failure: BaseException) -> str:
    """The first line of an error of Ray or the operating system."""
    first = (str(failure).strip() or type(failure).__name__).splitlines()[0]
    return f"{type(failure).__name__}: {first}"


def _spoken(amounts: dict[str, float]) -> str:
    cpus, memory, gpus = (amounts.get(name, 0) for name in ("CPU", "memory", "GPU"))
    return f"{cpus:g} CPUs, {memory / (1 << 30):.1f} GiB" + (f", {gpus:g} GPUs" if gpus else "")
