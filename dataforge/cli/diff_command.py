"""`dataforge diff`: what two plans do differently."""

from __future__ import annotations

import json

import click

from dataforge.cli.settings import json_option, open_workspace, workspace_option


@click.command("diff")
@click.argument("first")
@click.argument("second")
@workspace_option
@json_option
def command(first: str, second: str, workspace_path: str, as_json: bool) -> None:
    """What the plan SECOND draws more or less of than the plan FIRST, by cluster."""
    from dataforge.plans.plan import open_plan

    workspace = open_workspace(workspace_path)
    plans = [open_plan(workspace.open(ref, "plans")) for ref in (first, second)]
    told = plans[0].diff(plans[1]).to_json()
    print(json.dumps(told, indent=None if as_json else 1))
