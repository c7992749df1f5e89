"""A server of windows for tests: the standard library's HTTP server around `Window`, with faults on demand."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from dataforge.errors import AccessDenied, DataforgeError
from dataforge.rows import Rows
from dataforge.streams.problems import problem_of
from dataforge.streams.windows import Window, WindowRequest

Fault = Callable[["Handler", bytes, dict[str, str]], bool]
"""Given the handler, the whole body and its headers: True if it has answered (or not answered) itself."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, rows: Rows, key: str | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rows, self.key = rows, key
        self.faults: list[Fault] = []
        """Taken one by one by the requests that come, from the front."""
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/rows/{self.rows.artifact.id}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients hang up in these tests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        try:
            if self.server.key is not None and self.headers.get("Authorization") != f"Bearer {self.server.key}":
                raise AccessDenied("no key, or a wrong one", hint="give `api_key`")
            window = Window(self.server.rows, WindowRequest.of_query(dict(parse_qsl(urlsplit(self.path).query))))
        except DataforgeError as error:
            self.problem(error)
            return
        body = b"".join(window.frames())
        assert len(body) == window.content_length
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault is None or not fault(self, body, window.headers()):
            self.answer(body, window.headers())

    def answer(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def problem(self, error: DataforgeError) -> None:
        body = json.dumps(problem_of(error)).encode()
        self.send_response(error.status)
        self.send_header("content-type", "application/problem+json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(rows: Rows, key: str | None = None) -> Iterator[Server]:
    """A running server on a free loopback port."""
    server = Server(rows, key)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
