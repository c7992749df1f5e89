"""HTTP GET with the standard library: one kept-alive connection, a deadline on every wait, answers of known length."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from typing import Any, cast
from urllib.parse import urlsplit

from dataforge.errors import ConfigError, DataforgeError, StreamError
from dataforge.streams.frames import MEDIA_TYPE
from dataforge.streams.problems import error_of

RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_PROBLEM_BYTES = 64 << 10


class Interrupted(Exception):
    """The answer did not come whole; the same request may be sent again."""

    def __init__(self, what: str, after_s: float = 0.0) -> None:
        super().__init__(what)
        self.after_s = after_s
        """The server asked to wait that long."""


class Address:
    """The base URL of a rows resource, checked and taken apart."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        sound = parts.scheme in ("http", "https") and parts.hostname and port != 0 and parts.path.strip("/")
        if not sound or parts.query or parts.fragment or parts.username or parts.password:
            raise ConfigError(
                f"{url[:200]!r} is no URL of rows", hint="write http://host:port/v1/rows/{id}; keys go to `api_key`"
            )
        self.secure = parts.scheme == "https"
        self.host, self.port = str(parts.hostname), port
        self.path = parts.path.rstrip("/")
        self.url = f"{parts.scheme}://{parts.netloc}{self.path}"


class Connection:
    """A connection that asks for one thing at a time. Not shared by threads, but `abort` may come from another."""

    def __init__(
        self, address: Address, *, api_key: str | None, connect_timeout_s: float, read_timeout_s: float
    ) -> None:
        kind = http.client.HTTPSConnection if address.secure else http.client.HTTPConnection
        self._http = kind(address.host, address.port, timeout=connect_timeout_s)
        self._address, self._read_timeout_s = address, read_timeout_s
        self._headers = {"Accept": MEDIA_TYPE, "Accept-Encoding": "identity", "User-Agent": "dataforge"}
        if api_key is not None:
            if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
                raise ConfigError("the API key holds characters that no key has", hint="check for spaces and line ends")
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._response: http.client.HTTPResponse | None = None
        self._socket: socket.socket | None = None
        self._left = 0

    def send(self, path: str) -> None:
        """Send a GET for the address's path with `path` behind it; the answer is fetched by `receive`."""
        try:
            if self._http.sock is None:
                self._http.connect()  # http.client sets TCP_NODELAY
                self._socket = cast(socket.socket, self._http.sock)
                self._socket.settimeout(self._read_timeout_s)
            self._http.request("GET", self._address.path + path, headers=self._headers)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error

    def receive(self, max_bytes: int) -> int:
        """Wait for the answer's head. Returns the length of its body.

        Raises:
            Interrupted: nothing usable came, or a status that passes (429, 503 ...).
            DataforgeError: the server refused; the class follows from the problem it sent.
        """
        try:
            response = self._http.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._broken(error) from error
        self._response = response
        if response.status != 200:
            raise self._refused(response)
        kind, length = (response.getheader(name, "").strip() for name in ("Content-Type", "Content-Length"))
        plain = response.getheader("Content-Encoding", "identity") == "identity"
        plain = plain and not response.getheader("Transfer-Encoding") and kind.replace(" ", "") == MEDIA_TYPE
        if not plain or not (length.isascii() and length.isdigit() and len(length) < 16):
            self.close()
            raise StreamError(
                f"the answer is {kind[:80]!r} of length {length[:20]!r}; {MEDIA_TYPE} of a stated length was asked for",
                where=self._address.url,
                hint="the URL must lead to dataforge itself, and nothing between may rewrite or compress bodies",
            )
        if int(length) > max_bytes:
            self.close()
            raise StreamError(
                f"the answer claims {int(length):,} bytes, {max_bytes:,} is the most for what was asked",
                where=self._address.url,
                hint="the server is not one of dataforge, or of another version",
            )
        self._left = int(length)
        return self._left

    def read_into(self, view: memoryview, deadline: float) -> None:
        """Fill `view` from the body. Raises Interrupted if the body ends early or the deadline passes."""
        assert self._response is not None, "an answer is read after its head"
        if len(view) > self._left:
            raise self._broken(EOFError(f"{self._left:,} bytes are left of the answer, a frame claims {len(view):,}"))
        stream: Any = self._response.fp
        while len(view):
            if time.monotonic() > deadline:
                raise self._broken(TimeoutError("the window did not come in time"))
            try:
                count = stream.readinto1(view)
            except (OSError, ValueError, AttributeError) as error:  # a closed file is a ValueError
                raise self._broken(error) from error
            if not count:
                raise self._broken(EOFError(f"the connection ended {self._left:,} bytes early"))
            view = view[count:]
            self._left -= count

    def finish(self) -> None:
        """The body is read: make the connection ready for the next request."""
        if self._left or self._response is None:
            self.close()
            return
        will_close = self._response.will_close
        self._response.close()
        self._response = None
        if will_close:
            self.close()

    def abort(self) -> None:
        """End a wait in another thread."""
        held = self._socket
        if held is not None:
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next `send` opens another."""
        if self._response is not None:
            self._response.close()
        self._http.close()
        self._response, self._socket, self._left = None, None, 0

    def _broken(self, error: BaseException) -> Interrupted:
        self.close()
        return Interrupted(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)

    def _refused(self, response: http.client.HTTPResponse) -> Exception:
        """What a status other than 200 means: an error to raise, or something to wait for."""
        status, waits = response.status, response.getheader("Retry-After", "")
        problem: Any = None
        try:
            if "json" in response.getheader("Content-Type", ""):
                problem = json.loads(response.read(_MAX_PROBLEM_BYTES))
        except (OSError, http.client.HTTPException, ValueError, RecursionError):
            problem = None
        finally:
            self.close()
        error: DataforgeError = error_of(problem, self._address.url, status)
        if status in RETRIED_STATUS and (status != 500 or problem is None):
            after_s = min(float(waits), 60.0) if waits.isascii() and waits.isdigit() and len(waits) < 6 else 0.0
            return Interrupted(f"status {status}: {error.what}", after_s)
        return error
