"""`dataforge report`: one self-contained HTML page about a chain."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dataforge.cli.settings import json_option, open_workspace, workspace_option


@click.command("report")
@click.argument("refs", nargs=-1, metavar="[REF]...")
@click.option("--out", default="report.html", show_default=True, type=click.Path(dir_okay=False), help="where it goes")
@workspace_option
@json_option
def command(refs: tuple[str, ...], out: str, workspace_path: str, as_json: bool) -> None:
    """One self-contained HTML page about REF and all it was made from; its path is printed.

    Without REF: the newest checkpoint, or else the newest artifact.
    """
    from dataforge.analysis import report

    path: Path = report(open_workspace(workspace_path), list(refs) or None, out)
    print(json.dumps({"path": str(path), "bytes": path.stat().st_size}) if as_json else path)
