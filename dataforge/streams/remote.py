"""Rows over HTTP: bounded windows, asked for again until they came whole.

A window is a GET whose answer never changes, so a retry is the same request. One thread reads; while it reads one
window the next ones are already asked for on other connections, so that the server works ahead. Nothing of a frame is
used before its checksums match, and a window counts only with its END frame.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataforge.errors import ChecksumMismatch, ConfigError, DataforgeError, FormatError, StreamError
from dataforge.shards.crc32c import crc32c
from dataforge.shards.format import dtype_of
from dataforge.streams import frames
from dataforge.streams.batches import Buffers, Chunk
from dataforge.streams.connection import Address, Connection, Interrupted
from dataforge.streams.frames import FrameType, Header
from dataforge.streams.problems import error_of
from dataforge.streams.ranks import Share, Steps
from dataforge.streams.windows import MAX_STEPS, MAX_WINDOW_BYTES, WindowRequest

_LARGEST_BODY = MAX_WINDOW_BYTES + (1 << 20)
_DAMAGED_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """How to ask. Nothing here changes what comes."""

    window_tokens: int = 1 << 20
    """Tokens of a full window; the first windows are smaller, so that the first batch comes soon."""
    in_flight: int = 2
    """Windows asked for at a time, each on a connection of its own."""
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    """Longest silence in the middle of an answer."""
    window_timeout_s: float = 300.0
    """Longest time for one window, however steadily it drips."""
    retry_budget_s: float = 300.0
    """How long to go on asking when no window comes whole."""
    retry_first_s: float = 0.1
    retry_most_s: float = 10.0
    """Waits between tries are random, up to a bound that doubles from the first to the second of these."""

    def __post_init__(self) -> None:
        if self.window_tokens < 1 or not 1 <= self.in_flight <= 64:
            raise ConfigError(f"window_tokens={self.window_tokens} and in_flight={self.in_flight} must be at least 1")
        if min(self.connect_timeout_s, self.read_timeout_s, self.window_timeout_s) <= 0 or self.retry_budget_s < 0:
            raise ConfigError("timeouts must be above 0 s")


class RemoteSource:
    """`http(s)://host:port/v1/rows/{id}` as a source of batches."""

    def __init__(self, url: str, *, api_key: str | None, config: RemoteConfig) -> None:
        self._address = Address(url)
        self._api_key, self._config = api_key, config
        self.where = self._address.url
        told = self._meta()
        self.digest, self.num_rows, self.row_length = told["rows"], told["num_rows"], told["row_length"]
        self.vocab_size = told["vocab_size"]
        self.dtype = dtype_of(self.vocab_size)

    def stream(self, cursor: int, end: int, share: Share, dtype: np.dtype) -> RemoteStream:
        """The steps from row `cursor` on."""
        return RemoteStream(self, cursor, end, share, dtype)

    def close(self) -> None:
        """Nothing is held between streams."""

    def connection(self) -> Connection:
        """A new connection to the server, not yet opened."""
        return Connection(
            self._address,
            api_key=self._api_key,
            connect_timeout_s=self._config.connect_timeout_s,
            read_timeout_s=self._config.read_timeout_s,
        )

    @property
    def config(self) -> RemoteConfig:
        return self._config

    def _meta(self) -> dict[str, Any]:
        """What the server says about the rows: a window of no steps."""
        patience = Patience(self._config, self.where, threading.Event())
        request = WindowRequest(cursor=0, steps=0, global_batch=1)
        connection = self.connection()
        while True:
            reading = _Reading(connection, self.where, time.monotonic() + self._config.window_timeout_s)
            try:
                connection.send(f"/window?{request.query()}")
                connection.receive(2 * frames.HEADER_BYTES + frames.MAX_JSON_BYTES)
                meta = reading.meta()
                reading.end(meta[0], 0, [])
                return meta[1]
            except (Interrupted, ChecksumMismatch, FormatError) as error:
                patience.wait(error)
            finally:
                connection.close()


class Patience:
    """How long and how often to ask again after failures in a row."""

    def __init__(self, config: RemoteConfig, where: str, stop: threading.Event) -> None:
        self._config, self._where, self._stop = config, where, stop
        self._random = random.Random()
        self.rest()

    def rest(self) -> None:
        """Something came whole: failures are forgotten."""
        self._tries, self._damaged, self._since = 0, 0, 0.0

    def wait(self, error: Exception) -> None:
        """Wait before the next try.

        Raises:
            ChecksumMismatch, FormatError: damaged answers came again and again.
            StreamError: the budget is spent.
        """
        now = time.monotonic()
        self._since = self._since or now
        self._tries += 1
        if isinstance(error, DataforgeError):
            self._damaged += 1
            if self._damaged >= _DAMAGED_TRIES:
                raise error
        bound = min(self._config.retry_most_s, self._config.retry_first_s * 2 ** min(self._tries - 1, 30))
        delay = max(getattr(error, "after_s", 0.0), self._random.uniform(0, bound))
        if now + delay - self._since > self._config.retry_budget_s:
            raise StreamError(
                f"no window came whole in {self._tries:,} tries over {now - self._since:,.1f} s; the last: {error}",
                where=self._where,
                hint="check that the server runs and can be reached; a loader goes on at the same row when asked again",
            ) from error
        if self._stop.wait(delay):
            raise Interrupted("stopped")


@dataclass
class _Asked:
    """A window that was asked for."""

    connection: Connection
    request: WindowRequest
    steps: Steps


class RemoteStream:
    """One rank's windows, in order, each as a chunk."""

    def __init__(self, source: RemoteSource, cursor: int, end: int, share: Share, dtype: np.dtype) -> None:
        self._source, self._cursor, self._end, self._share, self._dtype = source, cursor, end, share, dtype
        self._stop = threading.Event()
        self._patience = Patience(source.config, source.where, self._stop)
        self._buffers, self._bodies = Buffers(), Buffers(kept=1)
        self._connections = [source.connection() for _ in range(source.config.in_flight)]
        self._free = list(self._connections)
        self._asked: deque[_Asked] = deque()
        self._asked_to = cursor
        step_rows = max(1, -(-share.global_batch // share.world_size))
        row_bytes = (source.row_length + 1) * source.dtype.itemsize + frames.SEGMENT_BYTES
        within = min(source.config.window_tokens // (step_rows * (source.row_length + 1)), MAX_STEPS)
        self._most_steps = max(1, min(within, MAX_WINDOW_BYTES // 2 // (step_rows * row_bytes)))
        self._steps = 1

    def __next__(self) -> Chunk:
        if self._cursor >= self._end:
            self._close()
            raise StopIteration
        while not self._stop.is_set():
            try:
                self._ask_ahead()
                asked = self._asked[0]
                chunk = self._read(asked)
            except (Interrupted, ChecksumMismatch, FormatError) as error:
                self._start_over()
                if not self._stop.is_set():
                    self._patience.wait(error)
                continue
            except ConfigError:
                self._start_over()
                if self._most_steps == 1:
                    raise
                self._most_steps //= 2  # a refusal that may be about size: many short documents, large segment tables
                continue
            except BaseException:
                self._close()
                raise
            self._asked.popleft()
            self._free.append(asked.connection)
            self._cursor = int(asked.steps.next_cursor[-1])
            self._patience.rest()
            return chunk
        self._close()
        raise StopIteration

    def abort(self) -> None:
        """Let waits and reads that are under way end now."""
        self._stop.set()
        for connection in self._connections:
            connection.abort()

    def _ask_ahead(self) -> None:
        while self._free and self._asked_to < self._end:
            request, steps = self._window(self._asked_to)
            connection = self._free.pop()
            try:
                connection.send(f"/window?{request.query()}")
            except Interrupted:
                self._free.append(connection)
                if not self._asked:
                    raise
                return  # the window before may still come; this one is asked for again after it
            self._asked.append(_Asked(connection, request, steps))
            self._asked_to = int(steps.next_cursor[-1])
            self._steps = min(2 * self._steps, self._most_steps)

    def _window(self, cursor: int) -> tuple[WindowRequest, Steps]:
        """The next window. A short last step is a window of its own: there the global batch is what is left."""
        share, whole = self._share, (self._end - cursor) // self._share.global_batch
        steps, batch = (min(whole, self._steps), share.global_batch) if whole else (1, self._end - cursor)
        request = WindowRequest(
            cursor=cursor, steps=steps, global_batch=batch, rank=share.rank, world_size=share.world_size
        )
        told = Share(share.rank, share.world_size, batch).steps(cursor, steps, self._end)
        return request, told

    def _read(self, asked: _Asked) -> Chunk:
        """Receive one window whole; every byte is checked."""
        source = self._source
        deadline = time.monotonic() + source.config.window_timeout_s
        asked.connection.receive(_LARGEST_BODY)
        reading = _Reading(asked.connection, source.where, deadline)
        rows_digest, meta = reading.meta()
        if meta["rows"] != source.digest:
            raise StreamError(
                f"the server now gives rows {str(meta['rows'])[:12]}, the loader began with {source.digest[:12]}",
                where=source.where,
                hint="stop the server that has other rows, or start anew",
            )
        rows = asked.steps.rows()
        width = source.row_length + 1
        token_ids = self._buffers.take((rows.size, width), self._dtype)
        tables = []
        sums: list[bytes] = []
        done = 0
        while done < rows.size:
            header, head = reading.header(FrameType.DATA, rows_digest, sequence=len(sums) + 1)
            frames.check_data(
                header,
                row_length=source.row_length,
                item_bytes=source.dtype.itemsize,
                max_rows=rows.size - done,
                where=source.where,
            )
            body = self._bodies.take((header.body_bytes,), np.dtype(np.uint8))
            reading.body(header, body.data)
            segments = body[: header.table_bytes].view(np.int64).reshape(-1, 4)
            held = rows[done : done + header.num_rows]
            frames.check_segments(segments, held, source.row_length, source.where)
            payload = body[header.table_bytes :].view(source.dtype)
            if int(payload.max()) >= source.vocab_size:
                raise FormatError(
                    f"token id {int(payload.max()):,} came, the vocabulary has {source.vocab_size:,}",
                    where=source.where,
                )
            token_ids[done : done + header.num_rows] = payload.reshape(-1, width)
            tables.append(segments.copy())
            sums.append(head)
            done += header.num_rows
        reading.end(rows_digest, rows.size, sums)
        asked.connection.finish()
        table = np.concatenate(tables) if tables else np.empty((0, 4), np.int64)
        return Chunk(token_ids, table, asked.steps)

    def _start_over(self) -> None:
        """Forget what was asked for; ask again from the last whole window on."""
        for connection in self._connections:
            connection.close()
        self._free = list(self._connections)
        self._asked.clear()
        self._asked_to = self._cursor
        self._steps = max(1, min(self._steps, self._most_steps))

    def _close(self) -> None:
        for connection in self._connections:
            connection.close()


class _Reading:
    """Frames of one answer, checked as they come."""

    def __init__(self, connection: Connection, where: str, deadline: float) -> None:
        self._connection, self._where, self._deadline = connection, where, deadline
        self._head = bytearray(frames.HEADER_BYTES)

    def header(self, wanted: FrameType, rows_digest: int | None, sequence: int) -> tuple[Header, bytes]:
        """The next header, of the type that is due, and its bytes; an ERROR frame is raised as what it tells of."""
        self._connection.read_into(memoryview(self._head), self._deadline)
        header = Header.unpack(self._head, self._where)
        if header.type in (FrameType.ERROR, FrameType.GOAWAY):
            told = self.json(header)
            if header.type is FrameType.ERROR:
                raise error_of(told, self._where)
            raise Interrupted("the server is going down")
        if header.type is not wanted or header.sequence != sequence:
            raise FormatError(
                f"frame {header.sequence} is {header.type.name}, frame {sequence} should be {wanted.name}",
                where=self._where,
            )
        if rows_digest is not None and header.rows_digest != rows_digest:
            raise FormatError("a frame of other rows came", where=self._where)
        return header, bytes(self._head)

    def body(self, header: Header, view: memoryview) -> None:
        """Receive a body and compare it with the header's checksum."""
        self._connection.read_into(view, self._deadline)
        frames.check_body(header, view, self._where)

    def json(self, header: Header) -> Any:
        """The value of a META, ERROR or GOAWAY frame."""
        if header.table_bytes or header.payload_bytes > frames.MAX_JSON_BYTES:
            raise FormatError(f"a frame claims {header.body_bytes:,} bytes of JSON", where=self._where)
        data = bytearray(header.payload_bytes)
        self.body(header, memoryview(data))
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"a frame holds no JSON: {error}", where=self._where) from error

    def meta(self) -> tuple[int, dict[str, Any]]:
        """The META frame: the digest that every frame carries, and what it tells."""
        header, _ = self.header(FrameType.META, None, 0)
        told = self.json(header)
        names = ("num_rows", "row_length", "item_bytes", "vocab_size")
        sound = isinstance(told, dict) and all(type(told.get(name)) is int and told[name] >= 0 for name in names)
        sound = sound and isinstance(told.get("rows"), str) and told["rows"][:16] == f"{header.rows_digest:016x}"
        if not sound or told["row_length"] < 1 or not 1 <= told["vocab_size"] <= 1 << 32:
            raise FormatError("a META frame does not describe rows", where=self._where)
        if told["item_bytes"] != dtype_of(told["vocab_size"]).itemsize:
            raise FormatError("a META frame's token type does not follow from its vocabulary", where=self._where)
        return header.rows_digest, told

    def end(self, rows_digest: int, num_rows: int, heads: list[bytes]) -> None:
        """The END frame; it vouches for every DATA frame before it."""
        header, _ = self.header(FrameType.END, rows_digest, len(heads) + 1)
        seen = 0
        for head in heads:
            seen = crc32c(head, seen)
        if header.num_rows != num_rows or header.body_crc32c != seen or header.body_bytes:
            raise FormatError(
                f"the END frame tells of {header.num_rows:,} rows and other frames than came ({num_rows:,} rows)",
                where=self._where,
            )
