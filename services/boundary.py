"""The outermost layers of every request, in pure ASGI: an id, a count, a limit on bodies, an answer to any failure."""

from __future__ import annotations

import logging
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dataforge.services.metrics import Metrics
from dataforge.services.problems import BodyTooLarge, Scrubber, UnsupportedEncoding, respond

_LOG = logging.getLogger("dataforge.services.requests")
ROUTE = "dataforge.route"
"""Where in the scope a raw ASGI route puts its template; FastAPI's own routes are found by themselves."""


class Boundary:
    """Gives every request an id, counts it, and turns what no layer inside answered into a problem."""

    def __init__(self, app: ASGIApp, metrics: Metrics, scrubber: Scrubber) -> None:
        self._app, self._metrics, self._scrubber = app, metrics, scrubber

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0
        began = time.perf_counter()

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, marked)
            except Exception as error:
                if status:  # the head is out: all that is left is to cut the connection
                    raise
                await respond(scope, self._scrubber, error)(scope, receive, marked)
            finally:
                seconds = time.perf_counter() - began
                route = scope.get(ROUTE) or getattr(scope.get("route"), "path", None) or "(none)"
                self._metrics.answered(scope["method"], route, status, seconds)
                _LOG.info("%s %s %s %d %.1f ms", request_id, scope["method"], route, status, 1000 * seconds)


class BodyLimit:
    """Refuses bodies over a size, whether they announce it or not, and compressed ones."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app, self._max_body_bytes = app, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise UnsupportedEncoding("request bodies must not be compressed", hint="send the JSON as it is")
        told = headers.get(b"content-length", b"0")
        if not told.isdigit() or len(told) > 18 or int(told) > self._max_body_bytes:
            raise self._too_large()
        left = self._max_body_bytes

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"a request body may have {self._max_body_bytes:,} bytes", hint="send less at once")
