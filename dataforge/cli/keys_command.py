"""`dataforge keys`: API keys of the service."""

from __future__ import annotations

import json
import sys

import click

from dataforge.cli.settings import json_option, open_workspace, workspace_option


@click.group("keys")
def command() -> None:
    """API keys of the service: a key is shown once and stored as an HMAC."""


@command.command("create")
@click.option("--scope", "scopes", multiple=True, required=True, help="what the key may do; may be given several times")
@click.option("--label", default="", help="what the key is for")
@click.option("--days", type=float, default=None, help="days until it expires [default: never]")
@workspace_option
@json_option
def create(scopes: tuple[str, ...], label: str, days: float | None, workspace_path: str, as_json: bool) -> None:
    """Make a key and print it, this once."""
    from dataforge.services.keys import create_key

    key = create_key(open_workspace(workspace_path), scopes=scopes, label=label, days=days)
    print("this key is not shown again; clients read it from DATAFORGE_API_KEY", file=sys.stderr)
    print(json.dumps({"key": key}) if as_json else key)


@command.command("list")
@workspace_option
@json_option
def list_keys(workspace_path: str, as_json: bool) -> None:
    """The keys' public ids, scopes and last use; never the keys."""
    from dataforge.services.keys import list_keys as found

    rows = found(open_workspace(workspace_path))
    if as_json:
        print(json.dumps(rows, default=str))
        return
    for row in rows:
        print("  ".join(str(row[key]) for key in ("id", "scopes", "label", "state")))


@command.command("revoke")
@click.argument("key_id")
@workspace_option
def revoke(key_id: str, workspace_path: str) -> None:
    """Refuse a key from now on."""
    from dataforge.services.keys import revoke_key

    revoke_key(open_workspace(workspace_path), key_id)
    print(key_id)
