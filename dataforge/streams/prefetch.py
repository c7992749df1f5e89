"""One thread that reads ahead, bounded in bytes. No process, no shared memory, no lock file: nothing is left over."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque

from dataforge.errors import StreamError
from dataforge.streams.batches import Chunk, Stream

_JOIN_S = 10.0


class Prefetcher:
    """Reads a stream's chunks ahead in a thread and hands them out in order.

    Args:
        stream: where chunks come from; errors it raises are raised again by `next_chunk`, in their turn.
        budget_bytes: chunks that wait hold at most this much, or one chunk if that alone is more.
        stall_timeout_s: how long `next_chunk` waits before it gives up.
        where: named in errors.
    """

    def __init__(self, stream: Stream, *, budget_bytes: int, stall_timeout_s: float, where: str) -> None:
        self._stream, self._budget, self._timeout, self._where = stream, budget_bytes, stall_timeout_s, where
        self._change = threading.Condition()
        self._waiting: deque[Chunk] = deque()
        self._bytes = 0
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="dataforge-prefetch", daemon=True)
        self._thread.start()

    def next_chunk(self) -> Chunk | None:
        """The next chunk, None at the end. Raises what the stream raised, or StreamError after the stall timeout."""
        deadline = time.monotonic() + self._timeout
        with self._change:
            while not (self._waiting or self._ended or self._closed):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._stalled()
                self._change.wait(left)
            if self._waiting:
                chunk = self._waiting.popleft()
                self._bytes -= chunk.size_bytes
                self._change.notify_all()
                return chunk
            if self._error is not None:
                raise self._error
            return None

    def close(self) -> None:
        """Stop the thread and wait for it."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._bytes = 0
            self._change.notify_all()
        self._stream.abort()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _read(self) -> None:
        try:
            while True:
                try:
                    chunk = next(self._stream)
                except StopIteration:
                    break
                with self._change:
                    while not self._closed and self._waiting and self._bytes + chunk.size_bytes > self._budget:
                        self._change.wait()
                    if self._closed:
                        return
                    self._waiting.append(chunk)
                    self._bytes += chunk.size_bytes
                    self._change.notify_all()
                    del chunk
        except BaseException as error:  # handed to the reader, in its turn
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _stalled(self) -> StreamError:
        frame = sys._current_frames().get(self._thread.ident or 0)
        told = traceback.format_stack(frame)[-1].strip().replace("\n", " ") if frame else "the thread is gone"
        return StreamError(
            f"no batch came for {self._timeout:,.0f} s; the reader stands at: {told}",
            where=self._where,
            hint="look at the storage or the server; `stall_timeout_s` says how long to wait",
        )
