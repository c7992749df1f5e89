"""`dataforge serve`: plans over REST, rows as a stream."""

from __future__ import annotations

import click

from dataforge.cli.settings import open_workspace, workspace_option


@click.command("serve")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="address to listen on; beyond loopback keys are needed"
)
@click.option("--port", default=8765, show_default=True, help="port; 0 takes a free one")
@click.option("--metrics-port", default=0, show_default=True, help="port of /metrics; 0 takes a free one")
@click.option("--no-auth", is_flag=True, help="no API keys (loopback only)")
@workspace_option
def command(host: str, port: int, metrics_port: int, no_auth: bool, workspace_path: str) -> None:
    """Plans over REST, rows as a stream. The first line on stdout is the URL; SIGTERM drains and ends."""
    from dataforge.services.server import serve

    serve(open_workspace(workspace_path), host, port, no_auth=no_auth, metrics_port=metrics_port)
