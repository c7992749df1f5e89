"""The data plane: windows of rows as bytes, and single rows with where they came from.

A window is made by `dataforge.streams.windows`; here it gets HTTP: limits, entity tags, and a reader who may be slow or
gone. The route is raw ASGI. Rows are found, pages checked and tokens gathered in threads of their own, so neither other
requests nor the control plane wait for them.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from starlette.types import Receive, Scope, Send

from dataforge.errors import ConfigError, CorruptData
from dataforge.rows import Rows
from dataforge.services.auth import grant_of, needs
from dataforge.services.boundary import ROUTE
from dataforge.services.metrics import Metrics
from dataforge.services.problems import Overloaded, TooManyWindows
from dataforge.services.schemas import ID, NAME, ArtifactRef, RowNumber, RowShown, problems
from dataforge.services.settings import Settings
from dataforge.streams.frames import MEDIA_TYPE
from dataforge.streams.provenance import trace_row
from dataforge.streams.ranks import MAX_GLOBAL_BATCH, MAX_WORLD_SIZE
from dataforge.streams.windows import MAX_STEPS, Window, WindowRequest
from dataforge.workspace import Ref, Workspace

T = TypeVar("T")

WINDOW_PATH = "/v1/rows/{ref}/window"
_MAX_QUERY_BYTES = 1024
router = APIRouter(tags=["rows"])


class OpenRows:
    """Rows artifacts that are held mapped, the most recently used ones. Safe to use from several threads."""

    def __init__(self, workspace: Workspace, most: int, metrics: Metrics) -> None:
        self._workspace, self._most, self._metrics = workspace, most, metrics
        self._held: OrderedDict[str, Rows] = OrderedDict()
        self._lock = threading.Lock()

    def use(self, ref: str, work: Callable[[Rows], T]) -> T:
        """What `work` gives for the rows of that name or id.

        Rows that turn out damaged are opened anew the next time: the file may have been mended meanwhile.
        """
        rows = self._open(ref)
        try:
            return work(rows)
        except CorruptData:
            self._metrics.corrupt.inc()
            with self._lock:
                self._held.pop(rows.artifact.id, None)
            raise

    def _open(self, ref: str) -> Rows:
        told = Ref.parse(ref, "rows")
        artifact_id = told.id or self._workspace.open(told).id
        with self._lock:
            rows = self._held.get(artifact_id)
            if rows is not None:
                self._held.move_to_end(artifact_id)
        if rows is None or not (rows.artifact.path / "manifest.json").is_file():
            rows = Rows(self._workspace.open(Ref("rows", None, artifact_id)))
            with self._lock:
                self._held[artifact_id] = rows
                while len(self._held) > self._most:
                    self._held.popitem(last=False)  # its maps go when the last window that reads from them is done
        return rows

    def close(self) -> None:
        """Let go of all maps."""
        with self._lock:
            held, self._held = list(self._held.values()), OrderedDict()
        for rows in held:
            rows.close()


class Windows:
    """`GET /v1/rows/{ref}/window`: frames of tokens, as a raw ASGI application."""

    def __init__(
        self, rows: OpenRows, settings: Settings, metrics: Metrics, threads: ThreadPoolExecutor,
        cut_short: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._rows, self._settings, self._metrics, self._threads = rows, settings, metrics, threads
        self._cut_short = cut_short
        self._by_key: Counter[str | None] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ROUTE] = WINDOW_PATH
        grant = grant_of(scope)
        grant.require("rows:read")
        ref, request = scope["path_params"]["ref"], _request_of(scope["query_string"])
        self._admit(grant.key_id)
        try:
            with self._metrics.windows_in_flight.track_inprogress(), self._metrics.prepare_seconds.time():
                window = await self._in_thread(self._rows.use, ref, lambda rows: Window(rows, request))
            with self._metrics.windows_in_flight.track_inprogress():
                await self._answer(window, ref, scope, receive, send)
        finally:
            self._by_key[grant.key_id] -= 1
            if not self._by_key[grant.key_id]:
                del self._by_key[grant.key_id]

    def _admit(self, key_id: str | None) -> None:
        """Refuse before any work is done."""
        if self._by_key.total() >= self._settings.max_windows:
            raise Overloaded(f"{self._settings.max_windows} windows are under way, no more are begun")
        if key_id is not None and self._by_key[key_id] >= self._settings.max_windows_per_key:
            raise TooManyWindows(
                f"{self._settings.max_windows_per_key} windows are under way with this key",
                where=f"API key {key_id}",
                hint="read the windows that were asked for first, or use several keys",
            )
        self._by_key[key_id] += 1

    async def _answer(self, window: Window, ref: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = window.headers()
        if Ref.parse(ref, "rows").id is None:  # the name may point elsewhere tomorrow
            headers["cache-control"] = "private, no-cache, no-transform"
        if _matches(scope, headers["etag"]):
            kept = ("etag", "cache-control", "dataforge-next-cursor")
            await send(_head(304, {name: headers[name] for name in kept}))
            await send({"type": "http.response.body"})
            self._metrics.windows.labels("not-modified").inc()
            return
        await send(_head(200, headers))
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        whole = False
        try:
            async with asyncio.timeout(self._settings.window_timeout_s):
                whole = await self._send_frames(window, receive, send)
        except TimeoutError:
            pass  # the reader is too slow: its connection is closed, it may ask again
        finally:
            self._metrics.windows.labels("whole" if whole else "cut").inc()
        if whole:
            self._metrics.rows.inc(window.num_rows)

    async def _send_frames(self, window: Window, receive: Receive, send: Send) -> bool:
        """Send the frames, gathering the next one while one goes out. Returns whether the window went out whole.

        If it did not, the caller returns without ending the answer, and the server closes the connection: fewer bytes
        came than were announced, which no client can take for a whole window.
        """
        gone = asyncio.ensure_future(_until_gone(receive))
        frames = window.frames(self._cut_short)
        ahead = asyncio.ensure_future(self._in_thread(_next, frames))
        sent = 0
        try:
            while (frame := await ahead) is not None:
                ahead = asyncio.ensure_future(self._in_thread(_next, frames))
                sent += frame.nbytes
                await send({"type": "http.response.body", "body": frame, "more_body": sent < window.content_length})
                self._metrics.bytes.inc(frame.nbytes)
                if sent == window.content_length:
                    return True
                if gone.done():
                    break
            return False
        finally:
            gone.cancel()
            ahead.cancel()

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(work, *arguments))


def _next(frames: Iterator[memoryview]) -> memoryview | None:
    return next(frames, None)


async def _until_gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _request_of(query: bytes) -> WindowRequest:
    """The window that a query string asks for. Raises ConfigError."""
    if len(query) > _MAX_QUERY_BYTES:
        raise ConfigError(f"the query has {len(query):,} bytes, a window's has {_MAX_QUERY_BYTES:,} at most")
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="replace")
    told = dict(pairs)
    if len(told) != len(pairs):
        raise ConfigError("a window parameter is given twice", hint="give each once")
    return WindowRequest.of_query(told)


def _matches(scope: Scope, etag: str) -> bool:
    """Whether If-None-Match names the tag (RFC 9110 §13.1.2; comparison is weak)."""
    told = [value.decode("latin-1") for name, value in scope["headers"] if name == b"if-none-match"]
    tags = [tag.strip().removeprefix("W/") for value in told for tag in value.split(",")]
    return "*" in tags or etag in tags


def _head(status: int, headers: dict[str, str]) -> dict[str, Any]:
    told = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": told}


@router.get(
    "/v1/rows/{ref}/{row}",
    operation_id="showRow",
    dependencies=[needs("rows:read")],
    response_model=RowShown,
    responses=problems(404, 409),
)
def show_row(request: Request, ref: ArtifactRef, row: RowNumber) -> Any:
    """One row: its token ids, and for each stretch of them the document, the source file, the draw and its reason."""

    def work(rows: Rows) -> dict[str, Any]:
        told = trace_row(rows.artifact, row, rows)
        token_ids, _ = rows.read(row)
        return told | {"rows": rows.artifact.ref, "token_ids": token_ids.tolist()}

    return request.app.state.service.rows.use(ref, work)


def window_operation() -> dict[str, Any]:
    """The OpenAPI entry of the window route, which FastAPI does not see."""

    def number(name: str, low: int, high: int, text: str, default: int | None = None) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "integer", "minimum": low, "maximum": high}
        if default is not None:
            schema["default"] = default
        return {"name": name, "in": "query", "required": default is None, "schema": schema, "description": text}

    ref = {"type": "string", "pattern": rf"^{NAME}(@{ID})?$"}
    parameters = [
        {"name": "ref", "in": "path", "required": True, "schema": ref, "description": "A name, an id, or name@id."},
        number("cursor", 0, 10**18 - 1, "Row at which the first step begins."),
        number("steps", 0, MAX_STEPS, "Steps to read."),
        number("global_batch", 1, MAX_GLOBAL_BATCH, "Rows of a step, over all ranks."),
        number("rank", 0, MAX_WORLD_SIZE - 1, "Whose share.", 0),
        number("world_size", 1, MAX_WORLD_SIZE, "Ranks in all.", 1),
    ]
    ok = {"description": "Frames.", "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
    told = {str(status): entry for status, entry in problems(404, 409, 429).items()}
    return {
        "operationId": "readWindow",
        "tags": ["rows"],
        "summary": "Read Window",
        "description": (
            "The rows of one rank in consecutive steps, as frames with checksums (docs/formats.md). The same URL gives "
            "the same bytes, so a retry is the same request. `steps=0` gives the frame that describes the rows."
        ),
        "security": [{"ApiKey": []}],
        "parameters": parameters,
        "responses": {"200": ok, "304": {"description": "The ETag sent in If-None-Match still holds."}, **told},
    }
