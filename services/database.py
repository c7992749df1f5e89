"""The control plane's database: SQLite in `<workspace>/service/`, for what is no artifact. Few writes, short ones.

The data plane never needs it: manifests, plans and rows are files. Whoever answers requests opens it for keys only.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Column, Engine, Integer, LargeBinary, MetaData, String, Table, create_engine, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from dataforge.errors import WorkspaceError

VERSION = 1
"""Of the tables. Migrations go forward only: an older file is brought up, a newer one is refused."""

tables = MetaData()

facts = Table("facts", tables, Column("name", String, primary_key=True), Column("value", String, nullable=False))

api_keys = Table(
    "api_keys",
    tables,
    Column("id", String, primary_key=True),
    Column("mac", LargeBinary, nullable=False),
    Column("scopes", String, nullable=False),  # separated by spaces
    Column("label", String, nullable=False),
    Column("created_at", Integer, nullable=False),  # times are seconds since 1970, UTC
    Column("expires_at", Integer),
    Column("revoked_at", Integer),
    Column("last_used_at", Integer),
)


def folder_of(workspace: Path) -> Path:
    """The service's folder in a workspace; made, for its owner alone, if it is not there."""
    folder = workspace / "service"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def create_database(workspace: Path) -> Engine:
    """The database of a workspace, made if it is not there. Raises WorkspaceError if a later version wrote it."""
    path = folder_of(workspace) / "service.sqlite"
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = open_database(workspace)
    with engine.begin() as db:
        for table in tables.sorted_tables:
            db.execute(CreateTable(table, if_not_exists=True))
    try:
        with engine.begin() as db:
            db.execute(insert(facts).values(name="version", value=str(VERSION)))
    except IntegrityError:
        with engine.connect() as db:
            found = int(db.execute(select(facts.c.value).where(facts.c.name == "version")).scalar_one())
        if found > VERSION:
            raise WorkspaceError(
                f"the service's database has version {found}, this dataforge knows {VERSION}",
                where="service/service.sqlite",
                hint="install a newer dataforge-lm",
            ) from None
    return engine


def open_database(workspace: Path) -> Engine:
    """The database of a workspace as it is; nothing is made, so a missing one is an error at the first query.

    Every use opens the file anew: that costs less than a millisecond, and a restored or replaced file is seen at once.
    """
    uri = f"file:{quote(str((workspace / 'service' / 'service.sqlite').absolute()))}?mode=rw"

    def connect() -> sqlite3.Connection:
        db = sqlite3.connect(uri, uri=True, timeout=10, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        return db

    return create_engine("sqlite://", creator=connect, poolclass=NullPool)
