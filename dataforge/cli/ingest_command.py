"""`dataforge ingest`: files to documents, or more files to documents that are there."""

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
from dataforge.corpus.ingest import IngestConfig, append, ingest
from dataforge.errors import ConfigError


@click.command("ingest")
@click.argument("paths", nargs=-1, required=True, metavar="FILE_OR_FOLDER...")
@click.option("--append", "parent", default=None, metavar="DOCUMENTS", help="add to these documents; old numbers stay")
@click.option("--name", default=None, help="the artifact's name [default: documents, or the parent's]")
@config_options(IngestConfig)
@run_options
@workspace_option
@json_option
def command(paths: tuple[str, ...], parent: str | None, name: str | None, **given: Any) -> None:
    """Raw files (JSONL, Parquet, text) to documents."""
    workspace = open_workspace(given["workspace_path"], create=True)
    run = run_from(*(given[key] for key in ("dry_run", "workers", "where", "ray_address", "allow_mixed", "remake")))
    config = config_of(IngestConfig, given, given["settings"])
    if parent is None:
        made = ingest(workspace, paths, name=name or "documents", config=config, run=run)
    else:
        if config != IngestConfig():
            raise ConfigError("settings of the parent apply to what is appended", hint="leave the other settings out")
        made = append(workspace, workspace.open(parent, "documents"), paths, name=name, run=run)
    answer(workspace, made, run, as_json=given["as_json"])
