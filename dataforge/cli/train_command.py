"""`dataforge train`: a model from rows, read from disk or from a service."""

from __future__ import annotations

from typing import Any

import click

from dataforge.cli.settings import (
    config_of,
    config_options,
    json_option,
    open_workspace,
    run_from,
    run_options,
    workspace_option,
)
from dataforge.cli.step_command import answer
from dataforge.steps import step_named

_RUN = ("dry_run", "workers", "where", "ray_address", "allow_mixed", "remake")


def _command() -> click.Command:
    from dataforge.trainer.train import Place, TrainConfig, train

    @run_options
    @workspace_option
    @json_option
    @click.option("--name", default=None, help="the artifact's name; by default the rows'")
    @click.option("--source", default=None, metavar="URL", help="read the rows from a service: the same bytes")
    @click.option("--api-key", default=None, envvar="DATAFORGE_API_KEY", show_envvar=True, help="for --source")
    @click.option("--documents", default=None, metavar="REF", help="evaluate on the held-out documents of these")
    @click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, or auto")
    @click.option("--threads", type=int, default=None, metavar="N", help="CPU threads; all cores by default")
    @click.option("--checkpoint-every", default=50, show_default=True, metavar="STEPS", help="for a killed run")
    @config_options(TrainConfig)
    @click.argument("rows", metavar="ROWS")
    def command(**given: Any) -> None:
        workspace = open_workspace(given["workspace_path"])
        rows = workspace.open(given["rows"], "rows")
        documents = workspace.open(given["documents"], "documents") if given["documents"] else None
        run = run_from(**{key: given[key] for key in _RUN})
        place = Place(
            source=given["source"],
            api_key=given["api_key"],
            device=given["device"],
            num_threads=given["threads"],
            checkpoint_every=given["checkpoint_every"],
        )
        config = config_of(TrainConfig, given, given["settings"])
        name = given["name"] or rows.name
        made = train(workspace, rows, name=name, config=config, documents=documents, place=place, run=run)
        answer(workspace, made, run, as_json=given["as_json"])

    told = step_named("train").help
    return click.command("train", help=f"{told[0].upper()}{told[1:]}.")(command)


command = _command()
