"""`dataforge verify`: read every byte again."""

from __future__ import annotations

import json

import click

from dataforge.cli.settings import json_option, open_workspace, workspace_option


@click.command("verify")
@click.argument("refs", nargs=-1)
@workspace_option
@json_option
def command(refs: tuple[str, ...], workspace_path: str, as_json: bool) -> int:
    """Read every byte of artifacts again (all of them without REFS) and compare with their manifests."""
    workspace = open_workspace(workspace_path)
    chosen = [workspace.open(ref) for ref in refs] if refs else workspace.artifacts()
    found = {artifact.ref: workspace.verify(artifact) for artifact in chosen}
    if as_json:
        print(json.dumps(found))
    else:
        for ref, problems in found.items():
            print(f"{ref:<44}  {'sound' if not problems else ''}".rstrip())
            for problem in problems:
                print(f"    {problem}")
                if problem.startswith("part-"):
                    print(
                        f"    hint: the command that made it, with `--remake {problem.split(' ')[0]}`, writes it again"
                    )
    return 1 if any(found.values()) else 0
