"""One TOML file drives every step. Unknown keys are errors with the nearest name; only what is missing is made."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataforge.config import config_from
from dataforge.errors import ConfigError, InputError
from dataforge.registry import unknown
from dataforge.stage import Forecast, Run
from dataforge.steps import KINDS, STEPS, Step
from dataforge.workspace import Artifact, Workspace
from dataforge.workspace.artifact import check_name

Serve = Callable[[Workspace, Artifact], AbstractContextManager[str]]
"""Starts a service over a rows artifact; gives the URL that a loader reads from, and stops the service at the end."""

_PLACES = {"ingest": {"paths", "append"}, "train": {"stream"}}
"""Keys of a step's table that are not in its config: they say where things lie, not what is made."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A read and checked recipe."""

    name: str
    """The artifacts' name."""
    folder: Path
    """Where the file lies; relative paths start here."""
    path: Path
    configs: dict[str, Any] = field(default_factory=dict)
    """Step -> its config, in the order of a run."""
    places: dict[str, dict[str, Any]] = field(default_factory=dict)


def load_recipe(path: Path | str) -> Recipe:
    """Read a recipe and check every table and key, before anything is made.

    Raises:
        InputError: the file is missing or no TOML.
        UnknownName: a table is no step, or a key no setting of it.
        ConfigError: a value has the wrong type or is refused by the step.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError("there is no such recipe", where=str(path), hint="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the recipe is no TOML: {error}", where=str(path), hint="see docs/recipes.md") from error
    name = _name(tables.pop("name", path.stem), path)
    for table in tables:
        if table not in STEPS:
            raise unknown("recipe table", table, [*STEPS, "name"], where=str(path))
    configs: dict[str, Any] = {}
    places: dict[str, dict[str, Any]] = {}
    for step in STEPS.values():
        if step.name not in tables:
            continue
        table, where = tables[step.name], f"{path} [{step.name}]"
        if not isinstance(table, dict):
            raise ConfigError(f"{step.name} must be a table", where=str(path), hint=f"write [{step.name}]")
        apart = _PLACES.get(step.name, set())
        places[step.name] = {key: value for key, value in table.items() if key in apart}
        settings = {key: value for key, value in table.items() if key not in apart}
        configs[step.name] = config_from(step.config_class(), settings, where=where)
    if "ingest" not in configs or not places["ingest"].get("paths"):
        raise ConfigError("the recipe names no files", where=str(path), hint='write [ingest] with paths = ["folder"]')
    _check_chain(configs, path)
    return Recipe(name=name, folder=path.parent, path=path, configs=configs, places=places)


def _name(given: Any, path: Path) -> str:
    try:
        return check_name(str(given))
    except ConfigError as error:
        raise ConfigError(error.what, where=str(path), hint=error.hint) from error


def _check_chain(configs: dict[str, Any], path: Path) -> None:
    """Refuse a step whose input no table of the recipe makes."""
    made = {STEPS[name].kind for name in configs}
    for name in configs:
        for kind in _needs(STEPS[name]):
            if kind not in made:
                maker = next(step.name for step in STEPS.values() if step.kind == kind)
                raise ConfigError(f"[{name}] needs {kind}", where=str(path), hint=f"add a [{maker}] table")


def _needs(step: Step) -> list[str]:
    return [KINDS[role] for role in step.inputs]


def run_recipe(
    workspace: Workspace,
    recipe: Recipe,
    *,
    run: Run | None = None,
    until: str | None = None,
    serve: Serve | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Artifact]:
    """Make every artifact of a recipe that is not there yet.

    Args:
        workspace: where they go.
        recipe: what to make.
        run: where to run the stages.
        until: the last step to make.
        serve: how to start a service, for recipes that train from an HTTP stream (`[train] stream = "http"`); without
            it such a recipe trains from the mapped files: the same rows, bit for bit.
        say: told a line for each step as it ends.
    Returns:
        Step -> artifact (Forecast with `run.dry_run`).
    """
    run = run or Run()
    made: dict[str, Any] = {}
    latest: dict[str, Any] = {}
    if until is not None and until not in recipe.configs:
        raise unknown("step of this recipe", until, recipe.configs, where=str(recipe.path))
    for name, config in recipe.configs.items():
        step = STEPS[name]
        inputs = [latest[kind] for kind in _needs(step)]
        # Training is one sequential job: it runs here, whatever runs the parts of the other steps.
        where = replace(run, runner=None) if name == "train" else run
        stream: AbstractContextManager[str | None] = nullcontext()
        if name == "train" and recipe.places[name].get("stream") == "http" and serve and not run.dry_run:
            stream = serve(workspace, latest["rows"])
        with stream as source:
            made[name] = _make(workspace, step, inputs, recipe, config, where, latest, source)
        latest[step.kind] = made[name]
        say(f"{name:<16} {made[name].ref}")
        if name == until:
            break
    return made


def _make(
    workspace: Workspace,
    step: Step,
    inputs: list[Artifact],
    recipe: Recipe,
    config: Any,
    run: Run,
    latest: dict[str, Any],
    source: str | None,
) -> Artifact | Forecast:
    function = step.load()
    told: dict[str, Any] = {"name": recipe.name, "config": config, "run": run}
    if step.name == "ingest":
        from dataforge.corpus.ingest import append

        artifact = function(workspace, _paths(recipe, "paths"), **told)
        more = recipe.places["ingest"].get("append", [])
        for path in more:
            artifact = append(workspace, artifact, [recipe.folder / path], name=recipe.name, run=run)
        return artifact
    if step.name == "plan" and "shards" in latest:
        told["shards"] = latest["shards"]
    if step.name == "train":
        told |= {"source": source}
    return function(workspace, *inputs, **told)


def _paths(recipe: Recipe, key: str) -> list[Path]:
    given = recipe.places["ingest"][key]
    if not isinstance(given, list) or not all(isinstance(path, str) for path in given):
        raise ConfigError(f"{key} must be a list of paths", where=f"{recipe.path} [ingest]")
    return [recipe.folder / path for path in given]
