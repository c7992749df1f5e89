"""Where parts are made on one machine: this process, or a pool of spawned processes with fixed threads."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataforge.errors import ConfigError, WorkspaceError
from dataforge.stage import Inputs, Part, PartOut, Stage
from dataforge.workspace.content import content_of_file
from dataforge.workspace.publishing import publish_part


def make_part(stage: Stage, worker: Any, part: Part, folder: Path) -> dict[str, Any]:
    """Run one part and publish it: its file, what is attached to it, then its sidecar. Returns the sidecar's record.

    This is what a runner calls, in whatever process.
    """
    began = time.perf_counter()
    out = PartOut(folder, part, getattr(stage, "step", stage.kind))
    try:
        counts = stage.run_part(worker, part, out)
        content = getattr(stage, "content", content_of_file)
        told = {"rows": counts.made.get("documents", 0), "key": part.key, "counts": counts.to_json()}
        environment = environment_of(stage)
        if environment:
            told["environment"] = environment
        told["seconds"] = round(time.perf_counter() - began, 4)
        return publish_part(folder, out.path, part.name, told, out.close(), content, f"{part.stem}.json")
    except BaseException:
        out.discard()
        raise


def environment_of(stage: Stage) -> dict[str, Any] | None:
    """Device class, library versions and threads of a stage whose bytes depend on them; None for all others."""
    told = getattr(stage, "environment", None)
    return told() if told else None


class InProcess:
    """Parts one after another in this process."""

    def run(
        self,
        stage: Stage,
        inputs: Inputs,
        folder: Path,
        missing: Sequence[Part],
        done: Callable[[dict[str, Any]], None],
    ) -> None:
        worker = stage.open_worker(inputs)
        for part in missing:
            done(make_part(stage, worker, part, folder))


_given: tuple[Stage, Inputs] | None = None
"""In a pool's process: the stage and its inputs."""
_worker: list[Any] = []
"""In a pool's process: what the stage's `open_worker` gave, once a part has asked for it."""


@dataclass(frozen=True)
class ProcessPool:
    """Parts in spawned processes (never forked). A process that dies is replaced; its part is made again.

    Args:
        num_workers: processes.
        max_restarts: times a dead pool is replaced before the run stops.
    """

    num_workers: int
    max_restarts: int = 2

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ConfigError(f"num_workers must be at least 1, got {self.num_workers}")

    def run(
        self,
        stage: Stage,
        inputs: Inputs,
        folder: Path,
        missing: Sequence[Part],
        done: Callable[[dict[str, Any]], None],
    ) -> None:
        left = list(missing)
        for _ in range(self.max_restarts + 1):
            left = self._run(stage, inputs, folder, left, done)
            if not left:
                return
        raise WorkspaceError(
            f"worker processes died {self.max_restarts + 1} times; {len(left):,} of {len(missing):,} parts are missing",
            where=f"{folder.parent.name}/{folder.name}",
            hint="finished parts are kept: run the same command again, with fewer workers if memory ran out",
        )

    def _run(
        self, stage: Stage, inputs: Inputs, folder: Path, missing: list[Part], done: Callable[[dict[str, Any]], None]
    ) -> list[Part]:
        """One pool's life. Returns the parts it did not finish because a process died."""
        left = {part.name: part for part in missing}
        pool = ProcessPoolExecutor(
            min(self.num_workers, len(missing)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_open,
            initargs=(stage, inputs),
        )
        try:
            waiting = {pool.submit(_make, part, folder): part for part in missing}
            while waiting:
                finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    part = waiting.pop(future)
                    done(future.result())
                    del left[part.name]
        except BrokenProcessPool:
            return [part for part in left.values() if not (folder / f"{part.stem}.json").is_file()]
        finally:
            pool.shutdown(cancel_futures=True)
        return []


def _open(stage: Stage, inputs: Inputs) -> None:
    global _given
    _given = (stage, inputs)


def _make(part: Part, folder: Path) -> dict[str, Any]:
    assert _given is not None
    stage, inputs = _given
    if not _worker:  # here and not in `_open`: a stated error of `open_worker` reaches the driver as itself
        _worker.append(stage.open_worker(inputs))
    return make_part(stage, _worker[0], part, folder)
