"""The command of a step, made from its entry in `dataforge.steps` and its config class."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from dataforge.cli.progress import sized
from dataforge.cli.settings import (
    config_of,
    config_options,
    json_option,
    open_workspace,
    run_from,
    run_options,
    workspace_option,
)
from dataforge.stage import Forecast, Run
from dataforge.steps import KINDS, step_named
from dataforge.workspace import Artifact, Workspace

Lines = Callable[[Workspace, Artifact], list[str]]


def step_command(name: str, *, lines: Lines | None = None, optional: tuple[str, ...] = ()) -> click.Command:
    """A click command `dataforge NAME INPUT ... [settings]`.

    Args:
        name: the step.
        lines: what to say (on stderr) about the artifact that was made.
        optional: roles that may be given as `--role REF` besides the step's inputs.
    """
    step = step_named(name)
    config_class = step.config_class()

    @run_options
    @workspace_option
    @json_option
    @click.option("--name", default=None, help="the artifact's name; by default the first input's")
    @config_options(config_class)
    def command(**given: Any) -> None:
        workspace = open_workspace(given["workspace_path"])
        inputs = [workspace.open(given[role], KINDS[role]) for role in step.inputs]
        run = run_from(**{key: given[key] for key in _RUN})
        config = config_of(config_class, given, given["settings"])
        more = {role: workspace.open(given[role], KINDS[role]) for role in optional if given.get(role)}
        made = step.load()(workspace, *inputs, name=given["name"] or inputs[0].name, config=config, run=run, **more)
        answer(workspace, made, run, as_json=given["as_json"], lines=lines)

    for role in reversed(optional):
        command = click.option(f"--{role}", default=None, metavar="REF", help=f"{KINDS[role]} to use")(command)
    for role in reversed(step.inputs):
        command = click.argument(role, metavar=KINDS[role].upper())(command)
    return click.command(name, help=f"{step.help[0].upper()}{step.help[1:]}.")(command)


_RUN = ("dry_run", "workers", "where", "ray_address", "allow_mixed", "remake")


def answer(
    workspace: Workspace, made: Artifact | Forecast, run: Run, *, as_json: bool, lines: Lines | None = None
) -> None:
    """Say what was made, or would be; the reference is the last line on stdout."""
    if isinstance(made, Forecast):
        if as_json:
            print(json.dumps({**made.__dict__, "ref": made.ref}))
            return
        for line in forecast_lines(made):
            print(line, file=sys.stderr)
        print(made.ref)
        return
    for line in lines(workspace, made) if lines else count_lines(made.counts):
        print(line, file=sys.stderr)
    if as_json:
        print(
            json.dumps(
                {"ref": made.ref, "kind": made.kind, "id": made.id, "path": str(made.path), "counts": made.counts}
            )
        )
    else:
        print(made.ref)


def forecast_lines(told: Forecast) -> list[str]:
    """What a dry run says."""
    seconds = "not known" if told.seconds is None else f"{told.seconds:,.0f}"
    disk = sized(told.disk_bytes) if told.disk_bytes else "not known"
    return [
        f"would make  {told.ref}",
        f"parts       {told.parts - told.parts_found:,} to make, {told.parts_found:,} found",
        f"documents   {told.documents:,}",
        f"bytes       {told.bytes:,}",
        f"disk        {disk}",
        f"seconds     {seconds}",
    ]


def count_lines(counts: dict[str, Any]) -> list[str]:
    """An artifact's counts for people, a line a subject."""
    lines = []
    for side in ("in", "out"):
        if side in counts:
            told = ", ".join(f"{value:,} {unit}" for unit, value in counts[side].items())
            lines.append(f"{side:<10}{told}")
    for reason, units in counts.get("dropped", {}).items():
        lines.append("dropped   " + ", ".join(f"{value:,} {unit}" for unit, value in units.items()) + f" ({reason})")
    plain = {key: value for key, value in counts.items() if key not in ("in", "out", "dropped")}
    for key, value in plain.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            lines.append(
                f"{key.replace('_', ' '):<10}{value:,}" if len(key) < 10 else f"{key.replace('_', ' ')}  {value:,}"
            )
    return lines
