"""`dataforge status`: what is whole, what was begun, and how to go on."""

from __future__ import annotations

import json
from typing import Any

import click

from dataforge.cli.progress import sized
from dataforge.cli.settings import json_option, open_workspace, workspace_option
from dataforge.steps import STEPS
from dataforge.workspace import Artifact

_STEP_OF = {
    "text-hashes": "dedup", "duplicates": "dedup", "static-vectors": "embed", "centroids": "cluster",
    "explanations": "cluster", "counts": "train-tokenizer",
} | {step.kind: step.name for step in reversed(STEPS.values())}  # fmt: skip


@click.command("status")
@workspace_option
@json_option
def command(workspace_path: str, as_json: bool) -> None:
    """What is whole, what was begun, and how to go on."""
    workspace = open_workspace(workspace_path)
    whole, begun = workspace.artifacts(), workspace.unfinished()
    if as_json:
        print(json.dumps({"whole": [a.ref for a in whole], "unfinished": [_begun(told) for told in begun]}))
        return
    for artifact in whole:
        print(f"{artifact.ref:<44}  whole            {amount(artifact)}")
    for told in begun:
        parts = f"{told['done']} of {len(told['parts'])} parts"
        how = f"refused: {told['refused']['error']}" if told["refused"] else f"go on with: {_begun(told)['go_on_with']}"
        print(f"{told['ref']:<44}  {parts:<15}  {how}")
    if not whole and not begun:
        print("nothing yet; `dataforge ingest FILES` begins")


def amount(artifact: Artifact) -> str:
    """How much an artifact holds, for one line."""
    out = artifact.counts.get("out", {})
    told = [f"{out[unit]:,} {unit}" for unit in ("documents", "tokens") if unit in out]
    size = sum(part["bytes"] for part in artifact.manifest.parts)
    return "   ".join([*told, sized(size)])


def _begun(told: dict[str, Any]) -> dict[str, Any]:
    step = _STEP_OF.get(told["kind"], told["kind"])
    inputs = [given for given in told["inputs"].values() if isinstance(given, dict)]
    arguments = " ".join(f"{given['kind']}/{given['id']}" for given in inputs) or "the same files"
    if any(isinstance(given, list) for given in told["inputs"].values()):
        step, arguments = "ingest", "the same files"
    elif told["kind"] == "documents":
        step = "dedup"
    return {**told, "go_on_with": f"dataforge {step} {arguments}"}
