"""`dataforge plan`: how often each cluster is drawn, and in which order."""

from __future__ import annotations

from dataforge.cli.step_command import step_command
from dataforge.workspace import Artifact, Workspace


def _lines(workspace: Workspace, artifact: Artifact) -> list[str]:
    from dataforge.plans.plan import open_plan, summary_lines

    return summary_lines(open_plan(artifact))


command = step_command("plan", lines=_lines, optional=("shards",))
