"""`dataforge lineage`: what an artifact was made from; what one training row was made from, token by token."""

from __future__ import annotations

import json
from typing import Any

import click

from dataforge.cli.settings import json_option, open_workspace, workspace_option
from dataforge.workspace import Artifact, Workspace


@click.command("lineage")
@click.argument("ref")
@click.option("--row", type=int, default=None, help="of a rows artifact: trace this training row")
@click.option("--users", is_flag=True, help="the artifacts made from this one, instead")
@workspace_option
@json_option
def command(ref: str, row: int | None, users: bool, workspace_path: str, as_json: bool) -> None:
    """What an artifact was made from, nearest first; with --row, where each token of a training row comes from."""
    workspace = open_workspace(workspace_path)
    artifact = workspace.open(ref)
    if row is not None:
        _print_row(workspace, artifact, row, as_json)
        return
    found = workspace.users(artifact) if users else workspace.lineage(artifact)
    told = [{"ref": a.ref, "content": a.content, "from": _sources(a)} for a in found]
    if as_json:
        print(json.dumps(told))
        return
    for entry in told:
        print(entry["ref"])
        for source in entry["from"]:
            print(f"    from {source}")


def _sources(artifact: Artifact) -> list[str]:
    sources = []
    for role, told in artifact.manifest.inputs.items():
        if isinstance(told, dict):
            sources.append(f"{told['kind']}/{told['id']} ({role})")
        else:
            sources += [
                f"{file['path']} ({file['size_bytes']:,} bytes, sha256 {file['sha256'][:12]}...)" for file in told
            ]
    return sources


def _print_row(workspace: Workspace, artifact: Artifact, row: int, as_json: bool) -> None:
    from dataforge.streams.provenance import trace_row

    told: dict[str, Any] = trace_row(artifact, row)
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
        return
    print(f"{artifact.ref} row {row:,}: {told['num_tokens']:,} tokens of {len(told['segments']):,} documents")
    for segment in told["segments"]:
        place = f"{segment['file']}:{segment['position']}"
        print(f"    tokens {segment['row_offset']:>6,} +{segment['length']:<6,} {segment['id']}")
        print(f"        document {segment['document']:,} from {place}, its token {segment['offset']:,} on")
        place = f"draw {segment['draw']:,} of {told['plan']}"
        print(f"        cluster {segment['cluster']}, {place}, epoch {segment['epoch']}")
        print("        because " + ", ".join(f"{key} {value}" for key, value in segment["reason"].items()))
