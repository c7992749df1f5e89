"""`dataforge encode`: a text as a tokenizer cuts it."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console
from rich.text import Text

from dataforge.cli.settings import json_option, open_workspace, workspace_option

_SHADES = ("black on bright_cyan", "black on bright_yellow", "black on bright_green", "black on bright_magenta")


@click.command("encode")
@click.argument("tokenizer")
@click.argument("text", required=False)
@click.option("--encoder", type=click.Choice(["bpe", "lbpe"]), default=None, help="another encoder over the same file")
@workspace_option
@json_option
def command(tokenizer: str, text: str | None, encoder: str | None, workspace_path: str, as_json: bool) -> None:
    """TEXT (or stdin) as TOKENIZER cuts it: coloured pieces on a terminal, else a token id and its bytes a line."""
    from dataforge.tokenizers import Tokenizer

    workspace = open_workspace(workspace_path)
    loaded = Tokenizer.load(workspace.open(tokenizer, "tokenizers").path)
    if encoder:
        loaded = loaded.with_encoder(encoder)
    given = sys.stdin.buffer.read() if text is None else text.encode()
    token_ids = loaded.encode(given)
    pieces = [loaded.decode_bytes(token_ids[index : index + 1]) for index in range(len(token_ids))]
    if as_json:
        print(json.dumps({"token_ids": token_ids.tolist(), "pieces": [piece.hex() for piece in pieces]}))
    elif sys.stdout.isatty():
        shown = Text()
        for index, piece in enumerate(pieces):
            shown.append(piece.decode("utf-8", "replace"), style=_SHADES[index % len(_SHADES)])
        Console().print(shown)
        print(f"{len(token_ids):,} tokens, {len(given) / max(1, len(token_ids)):.2f} bytes a token", file=sys.stderr)
    else:
        for token_id, piece in zip(token_ids.tolist(), pieces, strict=True):
            print(f"{token_id}\t{piece!r}")
