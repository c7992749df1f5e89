"""`dataforge list`: the artifacts of a workspace, or those of one kind."""

from __future__ import annotations

import json

import click

from dataforge.cli.settings import json_option, open_workspace, workspace_option
from dataforge.cli.status_command import amount


@click.command("list")
@click.argument("kind", required=False)
@workspace_option
@json_option
def command(kind: str | None, workspace_path: str, as_json: bool) -> None:
    """The artifacts of a workspace, or those of one KIND; a star marks where a name points now."""
    workspace = open_workspace(workspace_path)
    found = workspace.artifacts(kind)
    pointed = {(k, i) for k in {a.kind for a in found} for i in workspace.names(k).values()}
    if as_json:
        print(json.dumps([{"ref": a.ref, "named": (a.kind, a.id) in pointed, "counts": a.counts} for a in found]))
        return
    for artifact in found:
        mark = "*" if (artifact.kind, artifact.id) in pointed else " "
        print(f"{mark} {artifact.ref:<44}  {amount(artifact)}")
