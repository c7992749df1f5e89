"""`dataforge run`: everything that a recipe names and that is not there yet."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager

import click

from dataforge.cli.settings import json_option, open_workspace, run_from, run_options, workspace_option
from dataforge.recipe import load_recipe, run_recipe
from dataforge.workspace import Artifact, Workspace


@click.command("run")
@click.argument("recipe", metavar="RECIPE.toml")
@click.option("--until", default=None, metavar="STEP", help="the last step to make")
@run_options
@workspace_option
@json_option
def command(
    recipe: str,
    until: str | None,
    workspace_path: str,
    as_json: bool,
    dry_run: bool,
    workers: int,
    where: str,
    ray_address: str | None,
    allow_mixed: bool,
    remake: tuple[str, ...],
) -> None:
    """Everything that RECIPE names and that is not there yet; the references are printed in order."""
    read = load_recipe(recipe)
    workspace = open_workspace(workspace_path, create=True)
    run = run_from(dry_run, workers, where, ray_address, allow_mixed, remake)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    made = run_recipe(workspace, read, run=run, until=until, serve=service, say=say)
    if as_json:
        print(json.dumps({name: artifact.ref for name, artifact in made.items()}))
    else:
        for artifact in made.values():
            print(artifact.ref)


def service(workspace: Workspace, rows: Artifact) -> AbstractContextManager[str]:
    """A service beside this process that streams `rows`; gives the URL that a loader reads from."""
    from dataforge.services.beside import serving

    return serving(workspace, rows)
