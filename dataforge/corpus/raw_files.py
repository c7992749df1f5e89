"""The user's files: found by path or folder, named relative to what was given, digested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataforge.corpus.readers import JSONL, PARQUET, TEXT, format_of
from dataforge.errors import ConfigError, InputError
from dataforge.stage import RawFile
from dataforge.workspace import Workspace


def find_raw_files(workspace: Workspace, paths: Sequence[Path | str], kind: str | None) -> list[RawFile]:
    """The files behind `paths`, sorted by relative path.

    A file is called by its own name, a file of a folder by the folder's name and its path inside; hidden files and
    folders are passed over.

    Raises:
        InputError: a path is missing, unreadable, or a folder holds nothing to read.
        ConfigError: a file's ending says no format and `kind` is None, or two files would have one relative path.
    """
    if not paths:
        raise ConfigError("no files were given", hint="name files or folders to ingest")
    found: dict[str, Path] = {}
    for given in map(Path, paths):
        for relative, at in _below(given):
            if kind is None and format_of(relative) is None:
                raise ConfigError(
                    f"the ending of {at.name!r} says no format",
                    where=str(at),
                    hint=f"known: {', '.join((*JSONL, *PARQUET, *TEXT))}; or give `--format jsonl|parquet|text`",
                )
            if found.setdefault(relative, at) != at:
                raise ConfigError(
                    f"two files are called {relative!r}",
                    where=f"{found[relative]} and {at}",
                    hint="give their common folder",
                )
    return [_digested(workspace, relative, at) for relative, at in sorted(found.items())]


def _below(given: Path) -> list[tuple[str, Path]]:
    if given.is_file():
        return [(given.name, given.absolute())]
    if not given.is_dir():
        raise InputError("there is no such file or folder", where=str(given), hint="check the path")
    root = given.absolute()
    inside = [path for path in root.rglob("*") if path.is_file()]
    seen = [path for path in inside if not any(step.startswith(".") for step in path.relative_to(root).parts)]
    if not seen:
        raise InputError("the folder holds no files", where=str(given), hint="check the path")
    return [(f"{root.name}/{path.relative_to(root).as_posix()}", path) for path in seen]


def _digested(workspace: Workspace, relative: str, at: Path) -> RawFile:
    try:
        return RawFile(relative, at.stat().st_size, workspace.catalog.sha256_of_raw(at), at)
    except OSError as error:
        raise InputError(
            f"the file cannot be read: {error.strerror}", where=str(at), hint="check its permissions"
        ) from error
