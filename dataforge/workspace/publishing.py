"""Publish a finished part: its file, what is attached to it, and last its sidecar, which says that it is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataforge.errors import NotReproducible
from dataforge.workspace import parts as files
from dataforge.workspace.content import sha256_of_file

ContentOf = Callable[[Path, str, str], str]
"""(path, SHA-256 of its bytes, final name) -> content digest."""


def publish_part(
    folder: Path,
    path: Path,
    name: str,
    told: dict[str, Any],
    attached: list[tuple[Path, str]],
    content: ContentOf,
    sidecar: str,
) -> dict[str, Any]:
    """Publish `path` as the part `name` of `folder`, with what is told of it. Returns the sidecar's record.

    Args:
        folder: the artifact's folder.
        path: the finished temporary file.
        name: the part's file name.
        told: what else the sidecar says (rows, key, counts ...).
        attached: (temporary path, final name) of further files of the part.
        content: gives a file's content digest.
        sidecar: name of the sidecar: `part-00000.json` for a part of `run_part`, `<name>.json` for one of `finish`.
    Raises:
        NotReproducible: a file of that name is there and says something else.
    """
    record: dict[str, Any] = {"path": name, **publish_file(path, folder / name, content), **told}
    if attached:
        record["attachments"] = [{"path": n, **publish_file(p, folder / n, content)} for p, n in attached]
    files.write_json(folder / sidecar, record)
    return record


def publish_file(path: Path, final: Path, content: ContentOf) -> dict[str, Any]:
    sha256 = sha256_of_file(path)
    content_made = content(path, sha256, final.name)
    told: dict[str, Any] = {"bytes": path.stat().st_size, "sha256": sha256, "content": content_made}
    if files.publish(path, final):
        return told
    # The name is taken: a killed run got this far, or another writer was first. What is there must say the same.
    sha256 = sha256_of_file(final)
    if sha256 == told["sha256"]:
        return told
    there: dict[str, Any] = {
        "bytes": final.stat().st_size,
        "sha256": sha256,
        "content": content(final, sha256, final.name),
    }
    if there["content"] != content_made:
        raise NotReproducible(
            f"{final.name} came out as {content_made[:8]}..., the file that is there is {there['content'][:8]}...",
            where=f"{final.parent.parent.name}/{final.parent.name}",
            hint="`dataforge verify` says whether that file is damaged; if not, the stage is not deterministic here",
        )
    return there
