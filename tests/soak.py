"""Kill the chain at random moments, resume it, and compare: `make soak`, or a slice of it by `--seconds`.

Each round takes a workspace in which the steps before the one to hit are whole, starts that step in a process of its
own, kills the process (SIGKILL) after a random part of the time the step takes undisturbed, kills a resumed run a
second time now and then, lets it end, and compares the artifact's content digest with the undisturbed one's. For
`train` that covers the weights, the optimizer and every line of losses.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataforge.recipe import load_recipe, run_recipe
from dataforge.workspace import Workspace

RECIPE = Path(__file__).with_name("soak.toml")
STARTING_S = 2.0
"""About what a process needs before it is ready; taken off the time in which kills fall."""
STEPS = ("ingest", "embed", "tokenize", "pack", "train")


@dataclass
class Tally:
    """What happened to one step."""

    rounds: int = 0
    kills: int = 0
    equal: int = 0
    too_late: int = 0
    """Rounds in which the step was over before the kill came; they do not count as kills."""
    seconds: float = 0.0
    leftovers: list[str] = field(default_factory=list)


def make_until(workspace: Path, step: str) -> str:
    """Make the soak recipe up to a step; the content digest of that step's artifact."""
    made = run_recipe(Workspace(workspace), load_recipe(RECIPE), until=step)
    return made[step].content


def child(workspace: Path, step: str) -> None:
    """The process that is killed: says `ready` when the steps before are found, then makes the step."""
    recipe = load_recipe(RECIPE)
    steps = list(recipe.configs)
    before = steps.index(step)
    if before:
        run_recipe(Workspace(workspace), recipe, until=steps[before - 1])
    print("ready", flush=True)
    print(make_until(workspace, step), flush=True)


def run_and_kill(workspace: Path, step: str, delay: float | None) -> str | None:
    """Run a step in a process of its own; with a delay, kill it then. The content digest, if it came to its end."""
    command = [sys.executable, __file__, "--child", step, str(workspace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if delay is not None:
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
        told = process.stdout.read().split()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"{step} failed with exit code {process.returncode}")
    return told[-1] if process.returncode == 0 else None


def undisturbed(whole: Path, folder: Path, steps: Iterable[str]) -> tuple[dict[str, str], dict[str, float]]:
    """Make everything once, then each step alone in a process of its own. Content digest and seconds by step."""
    contents, seconds = {}, {}
    for step in load_recipe(RECIPE).configs:
        contents[step] = make_until(whole, step)
    for step in steps:
        workspace = folder / "alone"
        shutil.copytree(base_of(whole, step, folder), workspace, copy_function=os.link)
        began = time.perf_counter()
        told = run_and_kill(workspace, step, None)
        seconds[step] = max(0.05, time.perf_counter() - began - STARTING_S)
        if told != contents[step]:
            raise SystemExit(f"{step} undisturbed gave {told}, then {contents[step]}")
        shutil.rmtree(workspace)
    return contents, seconds


def base_of(whole: Path, step: str, folder: Path) -> Path:
    """A workspace in which everything before `step` is whole, made of hard links."""
    recipe = load_recipe(RECIPE)
    steps = list(recipe.configs)
    base = folder / f"before-{step}"
    if base.is_dir():
        return base
    base.mkdir()
    shutil.copy2(whole / "dataforge.json", base)
    before = steps[: steps.index(step)]
    if before:
        made = run_recipe(Workspace(whole), recipe, until=before[-1])
        wanted = {a.id: a for last in made.values() for a in Workspace(whole).lineage(last)}
        # Token vectors take most of the first embedding; they are given, so that kills hit the documents.
        wanted |= {a.id: a for a in Workspace(whole).artifacts("static-vectors")}
        for artifact in wanted.values():
            copied = base / artifact.kind / artifact.path.name
            shutil.copytree(artifact.path, copied, copy_function=os.link)
    return base


def soak(counts: dict[str, int], seed: int, limit: float) -> dict[str, Any]:
    """Kill each step as often as asked for, in turn, until the counts or the time are reached."""
    chance = random.Random(seed)
    tallies = {step: Tally() for step in counts}
    ended = time.monotonic() + limit
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contents, seconds = undisturbed(folder / "whole", folder, counts)
        while time.monotonic() < ended:
            left = [step for step, tally in tallies.items() if tally.kills < counts[step]]
            if not left:
                break
            step = min(left, key=lambda s: tallies[s].kills / counts[s])
            tally, began = tallies[step], time.monotonic()
            workspace = folder / "round"
            shutil.copytree(base_of(folder / "whole", step, folder), workspace, copy_function=os.link)
            told = None
            for _ in range(chance.choice((1, 1, 2))):
                if told is None:
                    told = run_and_kill(workspace, step, chance.random() * seconds[step])
                    tally.kills += told is None
                    tally.too_late += told is not None
            told = told or run_and_kill(workspace, step, None)
            tally.rounds += 1
            tally.equal += told == contents[step]
            opened = Workspace(workspace)
            tally.leftovers += [str(path.relative_to(workspace)) for path in workspace.rglob("*.tmp")]
            problems = [problem for artifact in opened.artifacts() for problem in opened.verify(artifact)]
            if told != contents[step] or problems:
                raise SystemExit(f"{step} after a kill (seed {seed}, kill {tally.kills}): {told}, {problems}")
            shutil.rmtree(workspace)
            tally.seconds += time.monotonic() - began
    return {step: vars(tally) for step, tally in tallies.items()}


def main() -> None:
    """Run the soak and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kills of each step")
    parser.add_argument("--seconds", type=float, default=3000.0, help="stop after this long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=None, help="write the tallies to this JSON file")
    parser.add_argument("--child", nargs=2, metavar=("STEP", "WORKSPACE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(Path(given.child[1]), given.child[0])
        return
    tallies = soak(dict.fromkeys(STEPS, given.kills), given.seed, given.seconds)
    print(f"{'step':<12}{'rounds':>8}{'kills':>8}{'equal':>8}{'too late':>10}{'seconds':>10}")
    for step, told in tallies.items():
        print(
            f"{step:<12}{told['rounds']:>8}{told['kills']:>8}{told['equal']:>8}{told['too_late']:>10}{told['seconds']:>10.0f}"
        )
    rounds = sum(told["rounds"] for told in tallies.values())
    print(f"{rounds} passed, 0 failed")
    if given.save:
        versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "pyarrow", "faiss-cpu")}
        machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "versions": versions}
        told = {"command": " ".join(sys.argv), "seed": given.seed, **machine, "steps": tallies}
        given.save.parent.mkdir(parents=True, exist_ok=True)
        given.save.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
