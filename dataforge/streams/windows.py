"""The bytes of one window of rows: what a server sends for `/v1/rows/{id}/window?...`, whatever web framework it uses.

A window is a pure function of the rows and of the request: the same URL gives the same bytes, so a client retries by
asking again. Its length is known before the first byte, and every page of tokens it touches has been checked by then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from dataforge.errors import ConfigError, DataforgeError, PastTheEnd
from dataforge.registry import unknown
from dataforge.rows.reader import Rows, Spans
from dataforge.shards.crc32c import crc32c
from dataforge.streams import frames
from dataforge.streams.frames import FrameType, Header
from dataforge.streams.problems import problem_of
from dataforge.streams.ranks import Share

MAX_WINDOW_BYTES = 64 << 20
MAX_STEPS = 4096
FRAME_BYTES = 1 << 20
"""Token bytes of a full DATA frame; part of the frame format's version, since it decides a window's bytes."""


@dataclass(frozen=True, kw_only=True)
class WindowRequest:
    """Which steps of which rank are asked for."""

    cursor: int
    """Row at which the first step begins."""
    steps: int
    """0 asks for the META and END frames alone."""
    global_batch: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        Share(self.rank, self.world_size, self.global_batch)
        if self.cursor < 0:
            raise ConfigError(f"cursor must be at least 0, got {self.cursor}")
        if not 0 <= self.steps <= MAX_STEPS:
            raise ConfigError(f"steps must be between 0 and {MAX_STEPS:,}, got {self.steps:,}")

    @classmethod
    def of_query(cls, query: Mapping[str, str]) -> WindowRequest:
        """Read a request from the decoded query of a URL.

        Raises:
            ConfigError: a name is not known, a needed one is missing, or a value is no plain decimal number.
        """
        names = [field.name for field in fields(cls)]
        for name, value in query.items():
            if name not in names:
                raise unknown("window parameter", name, names)
            if not (value.isascii() and value.isdigit() and len(value) <= 18):
                raise ConfigError(f"{name} must be a whole number, got {value[:40]!r}")
        for name in ("cursor", "steps", "global_batch"):
            if name not in query:
                raise ConfigError(f"the window needs {name}", hint=f"give {', '.join(names)}")
        return cls(**{name: int(value) for name, value in query.items()})

    def query(self) -> str:
        """The query of this window's URL."""
        return "&".join(f"{name}={value}" for name, value in asdict(self).items())


class Window:
    """One window, ready to be sent.

    Making one reads and checks everything the window needs (run it off the event loop); sending only copies.

    Args:
        rows: the rows artifact; may be shared by threads.
        request: which steps.
    Raises:
        PastTheEnd: a step begins past the end.
        ConfigError: the window would hold more than `MAX_WINDOW_BYTES`.
        ChecksumMismatch, FormatError: a shard or the row index is damaged.
    """

    def __init__(self, rows: Rows, request: WindowRequest) -> None:
        self._rows, self.request = rows, request
        share = Share(request.rank, request.world_size, request.global_batch)
        last_begin = request.cursor + max(0, request.steps - 1) * request.global_batch
        if request.cursor > rows.num_rows or (request.steps and last_begin >= rows.num_rows):
            left = share.steps_left(min(request.cursor, rows.num_rows), rows.num_rows)
            raise PastTheEnd(
                f"{request.steps:,} steps of {request.global_batch:,} rows from row {request.cursor:,} on were asked "
                f"for, there are {rows.num_rows:,} rows",
                where=rows.artifact.ref,
                hint=f"{left:,} steps are left",
            )
        steps = share.steps(request.cursor, request.steps, rows.num_rows)
        self.num_rows = steps.num_rows
        self.next_cursor = int(steps.next_cursor[-1]) if request.steps else request.cursor
        self._row_bytes = (rows.row_length + 1) * rows.dtype.itemsize
        self._check_size(self.num_rows * self._row_bytes)
        wanted = steps.rows()
        per_frame = max(1, FRAME_BYTES // self._row_bytes)
        self._frames: list[tuple[np.ndarray, Spans]] = []
        size = 0
        for first in range(0, wanted.size, per_frame):
            held = wanted[first : first + per_frame]
            spans = rows.spans(held)
            size += frames.HEADER_BYTES + spans.row.size * frames.SEGMENT_BYTES + held.size * self._row_bytes
            self._check_size(size)
            rows.shards.check(spans.part, spans.start, spans.length)
            self._frames.append((held, spans))
        self._digest = int(rows.digest[:16], 16)
        self._meta = frames.json_frame(FrameType.META, self.meta(), sequence=0, rows_digest=self._digest)
        self.content_length = len(self._meta) + size + frames.HEADER_BYTES

    def _check_size(self, size: int) -> None:
        if size > MAX_WINDOW_BYTES:
            raise ConfigError(
                f"the window would hold {size:,} bytes or more, {MAX_WINDOW_BYTES:,} are allowed",
                where=self._rows.artifact.ref,
                hint="ask for fewer steps at a time, or raise world_size",
            )

    def meta(self) -> dict[str, Any]:
        """What the META frame says."""
        rows = self._rows
        return {
            "rows": rows.digest,
            "id": rows.artifact.id,
            "num_rows": rows.num_rows,
            "row_length": rows.row_length,
            "item_bytes": rows.dtype.itemsize,
            "vocab_size": rows.shards.vocab_size,
            "tokenizer": rows.shards.fingerprint.hex(),
            **asdict(self.request),
            "window_rows": self.num_rows,
            "next_cursor": self.next_cursor,
        }

    @property
    def etag(self) -> str:
        """A strong entity tag, quotes included."""
        told = f"{frames.VERSION} {self._rows.digest} {self.request.query()}"
        return f'"{hashlib.sha256(told.encode()).hexdigest()[:32]}"'

    def headers(self) -> dict[str, str]:
        """HTTP headers of the response."""
        return {
            "content-type": frames.MEDIA_TYPE,
            "content-length": str(self.content_length),
            "etag": self.etag,
            "cache-control": "private, immutable, max-age=31536000, no-transform",
            "dataforge-next-cursor": str(self.next_cursor),
        }

    def frames(self, going_down: Callable[[], bool] = lambda: False) -> Iterator[memoryview]:
        """The frames in order, one buffer each; together they have `content_length` bytes.

        A buffer is never written to again after it was handed out. If an error comes up midway, an ERROR frame takes
        the place of the rest, and if `going_down` says so between frames, a GOAWAY frame: then fewer bytes come than
        were announced, and the server must close the connection.
        """
        left = self.content_length - len(self._meta)
        yield memoryview(self._meta)
        seen = 0
        for sequence, (held, spans) in enumerate(self._frames, 1):
            try:
                buffer = None if going_down() else self._data_frame(sequence, held, spans)
            except DataforgeError as error:
                yield from self._instead(FrameType.ERROR, problem_of(error), sequence, left)
                return
            if buffer is None:
                yield from self._instead(FrameType.GOAWAY, {}, sequence, left)
                return
            seen = crc32c(buffer[: frames.HEADER_BYTES], seen)
            left -= buffer.nbytes
            yield buffer.data
        end = Header(
            FrameType.END,
            first_row=self.next_cursor,
            num_rows=self.num_rows,
            body_crc32c=seen,
            sequence=len(self._frames) + 1,
            rows_digest=self._digest,
        )
        yield memoryview(end.pack())

    def _data_frame(self, sequence: int, held: np.ndarray, spans: Spans) -> np.ndarray:
        rows = self._rows
        table_bytes, payload_bytes = spans.row.size * frames.SEGMENT_BYTES, held.size * self._row_bytes
        payload_at = frames.HEADER_BYTES + table_bytes
        buffer = np.empty(payload_at + payload_bytes, np.uint8)
        buffer[frames.HEADER_BYTES : payload_at].view(np.int64).reshape(-1, 4)[:] = rows.segments_of(held, spans)
        rows.gather(spans, buffer[payload_at:].view(rows.dtype))
        header = Header(
            FrameType.DATA,
            item_bytes=rows.dtype.itemsize,
            first_row=int(held[0]),
            num_rows=held.size,
            row_length=rows.row_length,
            payload_bytes=payload_bytes,
            table_bytes=table_bytes,
            body_crc32c=crc32c(buffer[frames.HEADER_BYTES :]),
            sequence=sequence,
            rows_digest=self._digest,
        )
        buffer[: frames.HEADER_BYTES] = np.frombuffer(header.pack(), np.uint8)
        return buffer

    def _instead(self, kind: FrameType, value: dict[str, Any], sequence: int, left: int) -> Iterator[memoryview]:
        """A frame in place of the rest, unless the announced length has no room for it: the torn window says enough."""
        frame = frames.json_frame(kind, value, sequence=sequence, rows_digest=self._digest)
        if len(frame) <= left:
            yield memoryview(frame)
