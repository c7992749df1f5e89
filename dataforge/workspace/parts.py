"""Write beside, make durable, then appear under the final name: nobody ever sees half a file.

A file becomes visible by a hard link from its temporary name, which fails if the name is taken (no replacement). So two
writers of one part are harmless: the second finds the name taken and compares what it made with what is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
from pathlib import Path
from typing import Any

_HOST = socket.gethostname().replace(".", "_")[:40]


def temporary(final: Path) -> Path:
    """A unique name beside `final`; it carries host and process so that leftovers can be told from work in progress."""
    return final.with_name(f".{final.name}.{_HOST}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def publish(temporary_path: Path, final: Path) -> bool:
    """Make a finished temporary file durable and visible as `final`, and remove the temporary name.

    Returns:
        True if this call made `final`; False if it was already there (nothing is replaced, the temporary file is gone).
    """
    _sync_file(temporary_path)
    try:
        os.link(temporary_path, final)
        made = True
    except FileExistsError:
        made = False
    os.unlink(temporary_path)
    sync_folder(final.parent)
    return made


def replace(temporary_path: Path, final: Path) -> None:
    """Make a finished temporary file durable and put it in place of `final` (names and journals, never parts)."""
    _sync_file(temporary_path)
    os.replace(temporary_path, final)
    sync_folder(final.parent)


def write_json(final: Path, value: Any, *, replacing: bool = False) -> bool:
    """Publish `value` as indented JSON under `final`. Returns False if the name was taken and `replacing` is off."""
    path = temporary(final)
    try:
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if replacing:
            replace(path, final)
            return True
        return publish(path, final)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sweep(folder: Path) -> int:
    """Remove temporary files and folders of processes of this host that are gone. Returns how many."""
    removed = 0
    for path in folder.glob(".*.tmp"):
        fields = path.name.split(".")
        host, pid = fields[-4], fields[-3]
        if host == _HOST and pid.isdigit() and not _alive(int(pid)):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed += 1
    return removed


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
