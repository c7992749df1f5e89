"""A small stage whose second part meets trouble the first time, and which tells where its parts were made."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataforge.corpus import Documents
from dataforge.errors import HeldOut
from dataforge.make import make
from dataforge.stage import Inputs, Out, Part, PartOut, Run, Runner, part_key
from dataforge.workspace import Artifact, Counts, Workspace


@dataclass(frozen=True, kw_only=True)
class LengthsConfig:
    unit: str = "characters"


@dataclass(frozen=True)
class Lengths:
    """A small stage of the test's own: text lengths of each part, and, beside it, where and how the part was made."""

    config: LengthsConfig
    notes: Path
    """A folder for what the parts tell; not part of the id."""
    trouble: str = ""
    """What happens in the middle of part-00001, the first time: `kill`, `always-kill`, `kill-node`, an errno's name,
    `held-out`, `wait`, `wait-natively`."""
    world: str = "here"
    parts: int = 2
    kind = "lengths"
    version = 1

    def environment(self) -> dict[str, Any]:
        return {"device": os.environ.get("TEST_WORLD", "here") if self.world == "read" else self.world}

    def split(self, inputs: Inputs) -> list[Part]:
        told = Documents(inputs["documents"]).parts
        return [
            Part(f"part-{index:05d}.jsonl", part_key(self, told[index % 2].content, index), {"part": told[index % 2]})
            for index in range(self.parts)
        ]

    def open_worker(self, inputs: Inputs) -> int:
        (self.notes / f"opened-{os.getpid()}-{os.urandom(4).hex()}").touch()
        return os.getpid()

    def run_part(self, worker: int, part: Part, out: PartOut) -> Counts:
        import ray

        lengths = []
        for _, batch in part.payload["part"].batches(["text"]):
            lengths += [len(text) for text in batch.column("text").to_pylist()]
        told = {"pid": os.getpid(), "opened_in": worker, "threads": os.environ.get("OMP_NUM_THREADS")}
        if ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE:
            told["resources"] = ray.get_runtime_context().get_assigned_resources()
            told["actor"] = ray.get_runtime_context().get_actor_id()
        (self.notes / f"{part.stem}.json").write_text(json.dumps(told))
        text = json.dumps(lengths)
        out.path.write_text(text[: len(text) // 2])
        if part.stem == "part-00001":
            self.stumble()
        out.path.write_text(text)
        return Counts(taken={"documents": len(lengths)}, made={"documents": len(lengths)})

    def stumble(self) -> None:
        if self.trouble == "always-kill":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            (self.notes / "stumbled").touch(exist_ok=False)
        except FileExistsError:
            return
        if self.trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "kill-node":
            os.kill(os.getppid(), signal.SIGKILL)  # the raylet, whose node is then lost
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "held-out":
            raise HeldOut("2 of 9 draws are held out", where="plans/web", hint="draw others")
        if self.trouble.startswith("E"):
            number = getattr(errno, self.trouble)
            raise OSError(number, os.strerror(number), "a/file")
        if self.trouble == "wait":
            for _ in range(6000):
                time.sleep(0.01)
        if self.trouble == "wait-natively":
            threading.Event().wait(60)

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        return Counts()


def told_by(notes: Path, part: str = "part-00001") -> dict[str, Any]:
    return json.loads((notes / f"{part}.json").read_text())


def lengths(workspace: Workspace, documents: Artifact, runner: Runner | None, notes: Path, **told: Any) -> Artifact:
    stage = Lengths(LengthsConfig(), notes, **told)
    return make(workspace, stage, {"documents": documents}, name="web", run=Run(runner=runner))
