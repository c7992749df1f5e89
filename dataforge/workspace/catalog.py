"""An index over a workspace in SQLite, for look-ups by key. Files are the truth: delete it, and it is made again.

Only a driver or the control plane opens it; workers and the data plane read manifests.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataforge.workspace.content import sha256_of_file
from dataforge.workspace.parts import read_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS parts (key TEXT, folder TEXT, stem TEXT, PRIMARY KEY (key, folder));
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
"""
_RACY_NS = 2_000_000_000


class Catalog:
    """The index of one workspace: finished parts by what they are made of, and digests of raw files."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.path = workspace / "catalog.sqlite"

    def part(self, key: str) -> tuple[Path, str] | None:
        """Folder and stem of a finished part with this key, if one is still there."""
        with self._open() as db:
            rows = db.execute("SELECT folder, stem FROM parts WHERE key = ?", (key,)).fetchall()
        for folder, stem in rows:
            if (self.workspace / folder / f"{stem}.json").is_file():
                return self.workspace / folder, stem
        return None

    def add_parts(self, folder: Path, keys: list[tuple[str, str]]) -> None:
        """Remember (key, stem) pairs of a folder's finished parts."""
        relative = folder.relative_to(self.workspace).as_posix()
        with self._open() as db:
            rows = [(key, relative, stem) for key, stem in keys]
            db.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", rows)

    def sha256_of_raw(self, path: Path) -> str:
        """SHA-256 of a raw file, remembered by path, size, modification time and inode.

        A file changed within the last two seconds is not remembered: the clock may be too coarse to show a next change.
        """
        before = os.stat(path)
        known = (before.st_size, before.st_mtime_ns, before.st_ino)
        with self._open() as db:
            row = db.execute("SELECT size, mtime_ns, inode, sha256 FROM files WHERE path = ?", (str(path),)).fetchone()
        if row and tuple(row[:3]) == known:
            return row[3]
        sha256 = sha256_of_file(path)
        if time.time_ns() - before.st_mtime_ns > _RACY_NS:
            with self._open() as db:
                db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (str(path), *known, sha256))
        return sha256

    def rebuild(self) -> int:
        """Make the index of parts again from the files. Returns how many parts it holds."""
        rows = list(self._sidecars())
        with contextlib.closing(self._connect()) as db, db:
            db.execute("DELETE FROM parts")
            db.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", rows)
            db.execute("INSERT OR REPLACE INTO facts VALUES ('built', '1')")
        return len(rows)

    def _sidecars(self) -> Iterator[tuple[str, str, str]]:
        for path in sorted(self.workspace.glob("*/*@*/*.json")):
            if path.name in ("manifest.json", "request.json", "run.json", "refused.json"):
                continue
            told: Any = read_json(path)
            if isinstance(told, dict) and {"key", "sha256", "content", "counts"} <= told.keys():
                yield told["key"], path.parent.relative_to(self.workspace).as_posix(), path.stem

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            db = self._connect()
            if not db.execute("SELECT 1 FROM facts WHERE name = 'built'").fetchone():
                db.close()
                self.rebuild()
                db = self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            for path in (self.path, Path(f"{self.path}-wal"), Path(f"{self.path}-shm")):
                path.unlink(missing_ok=True)
            self.rebuild()
            db = self._connect()
        with contextlib.closing(db), db:
            yield db

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=60)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(_SCHEMA)
        return db
