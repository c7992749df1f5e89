"""Options from config classes, and the options that every command has."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import click

from dataforge.config import Field, config_from, fields_of
from dataforge.errors import ConfigError
from dataforge.stage import Run, Runner
from dataforge.workspace import Workspace

Command = Callable[..., Any]


def workspace_option(function: Command) -> Command:
    """`--workspace`, by default `./workspace` or what DATAFORGE_WORKSPACE says."""
    return click.option(
        "--workspace", "-w", "workspace_path", default="workspace", envvar="DATAFORGE_WORKSPACE", show_default=True,
        show_envvar=True, help="folder of the artifacts", metavar="FOLDER",
    )(function)  # fmt: skip


def json_option(function: Command) -> Command:
    """`--json`: the answer as one JSON value."""
    return click.option("--json", "as_json", is_flag=True, help="the answer as one JSON value on stdout")(function)


def run_options(function: Command) -> Command:
    """Where to run, shared by all steps."""
    for option in reversed(
        [
            click.option("--dry-run", is_flag=True, help="say what would be made; make nothing"),
            click.option("--workers", default=1, show_default=True, help="processes on this machine", metavar="N"),
            click.option(
                "--on", "where", type=click.Choice(["here", "ray"]), default="here", help="where parts are made"
            ),
            click.option(
                "--ray-address",
                default=None,
                envvar="RAY_ADDRESS",
                show_envvar=True,
                help="a Ray cluster's address; without it a local one is started",
            ),
            click.option("--allow-mixed", is_flag=True, help="go on with parts that another device class made"),
            click.option("--remake", multiple=True, metavar="PART", help="write a damaged part again"),
        ]
    ):
        function = option(function)
    return function


def run_from(
    dry_run: bool, workers: int, where: str, ray_address: str | None, allow_mixed: bool, remake: tuple[str, ...] = ()
) -> Run:
    """The `Run` that the options describe."""
    from dataforge.cli.progress import progress

    runner: Runner | None = None
    if where == "ray":
        from dataforge.pipelines.ray_runner import RayRunner

        runner = RayRunner(ray_address, allow_mixed=allow_mixed)
    elif workers > 1:
        from dataforge.runners import ProcessPool

        runner = ProcessPool(workers)
    return Run(runner=runner, progress=progress(), dry_run=dry_run, allow_mixed=allow_mixed, remake=remake)


def open_workspace(path: str, *, create: bool = False) -> Workspace:
    """The workspace of `--workspace`; commands that only read refuse a folder that is none."""
    return Workspace(path, create=create)


def config_options(config: type) -> Callable[[Command], Command]:
    """One option for each plain setting of a config class, with its documentation, and `--set` for nested ones."""

    def decorate(function: Command) -> Command:
        options = [option for told in fields_of(config) if (option := _option(told)) is not None]
        options.append(
            click.option(
                "--set", "settings", multiple=True, metavar="KEY=VALUE", help="any setting, the value as in TOML"
            )
        )
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def config_of(config: type, given: Mapping[str, Any], settings: tuple[str, ...]) -> Any:
    """The config instance of a command's options: what was not given keeps its default."""
    names = {told.name for told in fields_of(config)}
    values = {name: value for name, value in given.items() if name in names and value is not None and value != ()}
    for told in fields_of(config):
        if _is_mapping(told.type) and isinstance(values.get(told.name), tuple):
            values[told.name] = dict(_pair(text) for text in values[told.name])
    for text in settings:
        key, value = _pair(text)
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        *path, last = key.replace("-", "_").split(".")
        table = values
        for step in path:
            table = table.setdefault(step, {})
        table[last] = parsed
    return config_from(config, values, where="the command line")


def _option(told: Field) -> Callable[[Command], Command] | None:
    kind = _plain(told.type)
    name = "--" + told.name.replace("_", "-")
    default = None if told.default is dataclasses.MISSING else told.default
    shown = "" if default in (None, (), {}) or kind is bool else f"  [default: {default}]"
    help_text = (told.doc or "").rstrip() + shown
    if kind is bool:
        default_text = f"  [default: {'yes' if default else 'no'}]"
        return click.option(f"{name}/--no-{name[2:]}", told.name, default=None, help=(told.doc or "") + default_text)
    if kind in (int, float, str):
        return click.option(name, told.name, type=kind, default=None, help=help_text)
    if typing.get_origin(kind) is typing.Literal:
        return click.option(name, told.name, type=click.Choice(typing.get_args(kind)), default=None, help=help_text)
    if _is_mapping(kind):
        single = name.removesuffix("s")
        return click.option(single, told.name, multiple=True, metavar="NAME=VALUE", help=help_text)
    if typing.get_origin(kind) is tuple and typing.get_args(kind)[0] in (int, float, str):
        return click.option(name, told.name, type=typing.get_args(kind)[0], multiple=True, help=help_text)
    return None


def _plain(kind: Any) -> Any:
    """`int | None` as `int`."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        left = [option for option in typing.get_args(kind) if option is not type(None)]
        if len(left) == 1:
            return left[0]
        return float if set(left) == {int, float} else kind
    return kind


def _is_mapping(kind: Any) -> bool:
    return (typing.get_origin(kind) or kind) in (dict, Mapping)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"{text!r} is not NAME=VALUE", where="the command line")
    return key.strip(), value.strip()
