"""API keys: `df_<environment>_<id>_<secret>_<checksum>`, shown once, kept as an HMAC.

The id finds the key, the secret has 256 bits of chance, the checksum tells a typing error from a wrong key without a
look-up and lets scanners of repositories recognise a leaked one. What is stored is HMAC-SHA-256 of the whole key under
a *pepper*, a secret of the workspace in a file of its own: who has only the database can neither use a key nor try one.
A slow password hash would buy nothing against 256 random bits and would let anyone keep the processor busy.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, insert, select, update

from dataforge.errors import ConfigError, CorruptData
from dataforge.registry import unknown
from dataforge.services.database import api_keys, create_database, folder_of, open_database
from dataforge.workspace import Workspace, parts

SCOPES = {
    "artifacts:read": "list and show artifacts of every kind",
    "rows:read": "stream rows, and look at one row with where it came from",
    "plans:write": "make sampling plans",
    "jobs:read": "see jobs and their results",
}
"""What a key may do."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH, _SECRET_LENGTH, _CHECKSUM_LENGTH = 10, 43, 6
_KEY = re.compile(
    rf"df_([a-z]{{1,12}})_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})_([0-9A-Za-z]{{6}})"
)
_PEPPER_BYTES = 32
_USE_NOTED_S = 60
_DAY_S = 86_400


@dataclass(frozen=True)
class Key:
    """What is known of a key. The key itself is not."""

    id: str
    mac: bytes
    scopes: frozenset[str]
    label: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None

    def state(self, now: float) -> str:
        """`live`, `revoked` or `expired`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "live"


def create_key(
    workspace: Workspace | Path | str,
    *,
    scopes: Iterable[str],
    label: str = "",
    days: float | None = None,
    environment: str = "live",
) -> str:
    """A new API key. This is the only time it can be read.

    Args:
        workspace: whose service it opens.
        scopes: what it may do, names of `SCOPES`.
        label: what it is for, up to 200 characters.
        days: until it expires; None for never.
        environment: up to 12 letters that say which service it belongs to.
    Raises:
        UnknownName: there is no such scope.
        ConfigError: no scopes, a lifetime that is not above 0, or a label or environment that does not fit.
    """
    wanted = sorted(set(scopes))
    for scope in wanted:
        if scope not in SCOPES:
            raise unknown("scope", scope, SCOPES)
    if not wanted:
        raise ConfigError("a key needs at least one scope", hint=f"choose from {', '.join(SCOPES)}")
    if days is not None and not 0 < days <= 36_500:
        raise ConfigError(f"a key must live for more than 0 and at most 36,500 days, got {days}")
    if len(label) > 200 or not label.isprintable():
        raise ConfigError("a label has up to 200 printable characters")
    if not re.fullmatch(r"[a-z]{1,12}", environment):
        raise ConfigError(f"{environment!r} is no environment", hint="use up to 12 letters a to z")
    key_id, secret = _random_text(_ID_LENGTH), _random_text(_SECRET_LENGTH)
    body = f"df_{environment}_{key_id}_{secret}"
    key = f"{body}_{_checksum(body)}"
    path = _path_of(workspace)
    engine = create_database(path)
    now = int(time.time())
    told = {
        "id": key_id,
        "mac": _mac(_pepper(path, create=True), key),
        "scopes": " ".join(wanted),
        "label": label,
        "created_at": now,
        "expires_at": None if days is None else now + max(1, round(days * _DAY_S)),
    }
    with engine.begin() as db:
        db.execute(insert(api_keys).values(told))
    return key


def list_keys(workspace: Workspace | Path | str) -> list[dict[str, Any]]:
    """All keys, oldest first: id, scopes, label, state, and times in seconds since 1970; never a key or its HMAC."""
    path, now = _path_of(workspace), time.time()
    told = []
    for key in KeyStore(path).all():
        times = {name: getattr(key, name) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
        scopes = " ".join(sorted(key.scopes))
        told.append({"id": key.id, "scopes": scopes, "label": key.label, "state": key.state(now), **times})
    return told


def revoke_key(workspace: Workspace | Path | str, key_id: str) -> None:
    """Refuse a key from now on; a running service notices within `auth_cache_s`. Raises UnknownName."""
    path = _path_of(workspace)
    known = [key.id for key in KeyStore(path).all()]
    if key_id not in known:
        raise unknown("API key", key_id[:64], known)
    with open_database(path).begin() as db:
        revoked = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        db.execute(revoked.values(revoked_at=int(time.time())))


class KeyStore:
    """The keys of a workspace, read each time. Any method may raise SQLAlchemyError: the database is out of reach."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._engine: Engine = open_database(workspace)

    @property
    def exists(self) -> bool:
        """Whether a key was ever made."""
        return (self._workspace / "service" / "service.sqlite").is_file()

    def find(self, key_id: str) -> Key | None:
        """The key of that id, if there is one."""
        found = self._select(api_keys.c.id == key_id)
        return found[0] if found else None

    def all(self) -> list[Key]:
        """All keys, oldest first; none if no database was made yet."""
        return self._select() if self.exists else []

    def note_use(self, key: Key, now: float) -> None:
        """Remember when a key was used, to about a minute."""
        if key.last_used_at is None or now - key.last_used_at >= _USE_NOTED_S:
            with self._engine.begin() as db:
                db.execute(update(api_keys).where(api_keys.c.id == key.id).values(last_used_at=int(now)))

    def pepper(self) -> bytes:
        """The workspace's pepper."""
        return _pepper(self._workspace, create=False)

    def _select(self, *where: Any) -> list[Key]:
        query = select(api_keys).where(*where).order_by(api_keys.c.created_at, api_keys.c.id)
        with self._engine.connect() as db:
            return [
                Key(**{**row, "mac": bytes(row["mac"]), "scopes": frozenset(row["scopes"].split())})
                for row in db.execute(query).mappings()
            ]


def id_of(key: str) -> str | None:
    """The public id within a key, or None if it is no key: wrong form, or a checksum that does not fit."""
    found = _KEY.fullmatch(key)
    if found is None or not hmac.compare_digest(_checksum(key[: found.start(4) - 1]), found[4]):
        return None
    return found[2]


def matches(key: str, known: Key, pepper: bytes) -> bool:
    """Whether this is the known key; takes the same time whatever the answer."""
    return hmac.compare_digest(_mac(pepper, key), known.mac)


def _path_of(workspace: Workspace | Path | str) -> Path:
    return (workspace if isinstance(workspace, Workspace) else Workspace(workspace, create=False)).path


def _mac(pepper: bytes, key: str) -> bytes:
    return hmac.digest(pepper, key.encode("ascii"), hashlib.sha256)


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    """CRC-32 of the text, six characters."""
    value, told = zlib.crc32(body.encode("ascii")), ""
    for _ in range(_CHECKSUM_LENGTH):
        value, digit = divmod(value, len(_ALPHABET))
        told = _ALPHABET[digit] + told
    return told


def _pepper(workspace: Path, *, create: bool) -> bytes:
    path = workspace / "service" / "pepper"
    if create and not path.is_file():
        beside = parts.temporary(folder_of(workspace) / "pepper")
        handle = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(handle, "wb") as file:
            file.write(secrets.token_hex(_PEPPER_BYTES).encode())
        parts.publish(beside, path)  # if another process was quicker, its pepper counts
    try:
        told = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise CorruptData(
            "the pepper of the API keys is missing or damaged",
            where="service/pepper",
            hint="bring the file back from a backup; without it no key can be checked, and new ones must be made",
        ) from error
    if len(told) != _PEPPER_BYTES:
        raise CorruptData(f"the pepper has {len(told)} bytes, it should have {_PEPPER_BYTES}", where="service/pepper")
    return told
