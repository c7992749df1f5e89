"""`dataforge show`: one artifact."""

from __future__ import annotations

import json

import click

from dataforge.cli.settings import json_option, open_workspace, workspace_option
from dataforge.cli.step_command import count_lines
from dataforge.workspace.parts import read_json


@click.command("show")
@click.argument("ref")
@workspace_option
@json_option
def command(ref: str, workspace_path: str, as_json: bool) -> None:
    """One artifact: its counts, config, inputs and how it was made."""
    workspace = open_workspace(workspace_path)
    artifact = workspace.open(ref)
    if as_json:
        print(json.dumps(artifact.manifest.to_json()))
        return
    print(artifact.ref)
    print(f"content   {artifact.content}")
    for line in count_lines(artifact.counts):
        print(line)
    for role, told in artifact.manifest.inputs.items():
        named = f"{told['kind']}/{told['id']}" if isinstance(told, dict) else f"{len(told):,} files"
        print(f"from      {role}: {named}")
    for key, value in artifact.config.items():
        print(f"config    {key} = {json.dumps(value, ensure_ascii=False)}")
    print(f"parts     {len(artifact.manifest.parts):,} in {artifact.path}")
    run = artifact.path / "run.json"
    if run.is_file():
        told = read_json(run)
        print(
            f"made      {told['ended']} in {told['seconds']:.1f} s, {told['made']} parts made, {told['reused']} reused"
        )
