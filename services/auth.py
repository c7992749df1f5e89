"""Who asks, and what they may do: `Authorization: Bearer <key>` on everything but health.

401 says that no key or no valid one was sent, 403 that the key's scopes do not reach. Looked-up keys are believed for a
few seconds; if the database cannot be read, for some minutes more, so that a running stream does not end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Receive, Scope, Send

from dataforge.errors import AccessDenied, CorruptData, Forbidden
from dataforge.services.keys import SCOPES, Key, KeyStore, id_of, matches
from dataforge.services.problems import Unavailable

OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""Answered without a key."""
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_CACHED_KEYS = 10_000
_HINT = "send `Authorization: Bearer <key>`; `dataforge keys create --scope ...` makes a key"


@dataclass(frozen=True)
class Grant:
    """What a request may do."""

    key_id: str | None
    """None where the service runs without keys."""
    scopes: frozenset[str]

    def require(self, *any_of: str) -> None:
        """Raise Forbidden unless one of the scopes is granted."""
        if self.scopes.isdisjoint(any_of):
            raise Forbidden(
                f"this needs a key with the scope {' or '.join(any_of)}",
                where=f"API key {self.key_id}",
                hint=f"it has {', '.join(sorted(self.scopes))}; `dataforge keys create --scope ...` makes another",
            )


@dataclass
class _Believed:
    key: Key | None
    since: float


@dataclass
class Authenticator:
    """Checks keys against the store. Used by the event loop's thread alone; look-ups run in another."""

    store: KeyStore
    cache_s: float
    grace_s: float
    clock: Callable[[], float] = time.monotonic
    reachable: bool = True
    """Whether the last look-up reached the database."""
    _known: dict[str, _Believed] = field(default_factory=dict)
    _pepper: bytes | None = None

    async def grant(self, header: str | None) -> Grant:
        """What the sender of an Authorization header may do.

        Raises:
            AccessDenied: no key, no valid one, a revoked or expired one.
            Unavailable: the key is not known from before and the database cannot be read.
        """
        kind, _, key = (header or "").partition(" ")
        key = key.strip()
        if kind.lower() != "bearer" or not key:
            raise AccessDenied("this needs an API key", hint=_HINT)
        key_id = id_of(key) if len(key) < 200 else None
        if key_id is None:
            raise AccessDenied(
                "this is no API key: its form or its checksum is wrong", hint="check that it was copied whole"
            )
        known = await self._find(key_id)
        state = known.state(time.time()) if known else "unknown"
        if known is None or not matches(key, known, await self._read_pepper()):
            raise AccessDenied("this API key is not known here", where=f"API key {key_id}", hint=_HINT)
        if state != "live":
            raise AccessDenied(f"this API key is {state}", where=f"API key {key_id}", hint=_HINT)
        return Grant(known.id, known.scopes)

    async def _find(self, key_id: str) -> Key | None:
        now, believed = self.clock(), self._known.get(key_id)
        if believed is not None and now - believed.since < self.cache_s:
            return believed.key
        try:
            key = await asyncio.to_thread(self._look_up, key_id)
            self.reachable = True
        except (SQLAlchemyError, OSError) as error:
            if not self.store.exists and not self._known:
                return None  # no key was ever made
            self.reachable = False
            if believed is not None and believed.key is not None and now - believed.since < self.grace_s:
                return believed.key
            raise Unavailable(
                "API keys cannot be checked now", hint="the key database cannot be read; try again"
            ) from error
        self._known.pop(key_id, None)
        while len(self._known) >= _CACHED_KEYS:
            self._known.pop(next(iter(self._known)))
        self._known[key_id] = _Believed(key, now)
        return key

    def _look_up(self, key_id: str) -> Key | None:
        key = self.store.find(key_id)
        if key is not None:
            # The time of last use is a courtesy: a database that can only be read still opens doors.
            with contextlib.suppress(SQLAlchemyError):
                self.store.note_use(key, time.time())
        return key

    async def _read_pepper(self) -> bytes:
        if self._pepper is not None:
            return self._pepper
        try:
            pepper = await asyncio.to_thread(self.store.pepper)
        except CorruptData as error:
            raise Unavailable("API keys cannot be checked now", where=error.where, hint=error.hint) from error
        self._pepper = pepper
        return pepper


class AuthMiddleware:
    """Puts a Grant into `scope["state"]["grant"]`, or refuses. Pure ASGI: bodies pass untouched."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator | None) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            scope.setdefault("state", {})["grant"] = await self._grant(headers)
        await self._app(scope, receive, send)

    async def _grant(self, headers: Mapping[bytes, str]) -> Grant:
        if self._authenticator is not None:
            return await self._authenticator.grant(headers.get(b"authorization"))
        # Without keys every process of this machine may ask, a web page in its browser may not: a name that was bent to
        # loopback (DNS rebinding) still shows in the Host header.
        host = headers.get(b"host", "")
        if host.rpartition(":")[0] not in _LOOPBACK_NAMES and host not in _LOOPBACK_NAMES:
            raise Forbidden(
                "a service without keys answers loopback names only",
                hint="ask http://127.0.0.1 or http://localhost, or run the service with keys",
            )
        return Grant(None, frozenset(SCOPES))


_BEARER = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="A key made by `dataforge keys create`.")


def grant_of(scope: Mapping[str, Any]) -> Grant:
    """The grant that the middleware gave a request."""
    return scope["state"]["grant"]


def needs(*any_of: str) -> Any:
    """A route's dependency: one of these scopes. The OpenAPI description shows that a key is asked for."""
    assert set(any_of) <= set(SCOPES), "a scope that no key can have"

    def check(request: Request, _: Annotated[Any, Security(_BEARER)]) -> None:
        grant_of(request.scope).require(*any_of)

    return Depends(check)
