"""Run the service: choose where to listen, refuse what would be open to others, drain on SIGTERM."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from dataforge.errors import ConfigError, StreamError
from dataforge.services.app import create_app
from dataforge.services.drain import Drain
from dataforge.services.keys import KeyStore
from dataforge.services.metrics import serve_metrics
from dataforge.services.settings import Settings
from dataforge.workspace import Workspace, parts

_BACKLOG = 2048
_FORCED_AFTER_S = 5


@dataclass(frozen=True)
class Bound:
    """Where a running service listens."""

    url: str
    metrics_url: str


Ready = Callable[[Bound], None]


def serve(
    workspace: Workspace | Path | str,
    host: str = "127.0.0.1",
    port: int = 8765,
    *,
    no_auth: bool = False,
    metrics_port: int = 0,
    ready: Ready | None = None,
    ready_file: Path | str | None = None,
) -> None:
    """Serve a workspace until SIGTERM or SIGINT; windows that are under way are finished first.

    When it listens, the URL is the first line on stdout; that of the metrics goes to stderr. Limits come from
    `DATAFORGE_*` variables (`Settings`).

    Args:
        workspace: what to serve.
        host: address to listen on; beyond loopback a live API key must exist.
        port: 0 takes a free one.
        no_auth: ask for no keys; loopback only.
        metrics_port: port of `/metrics`; 0 takes a free one.
        ready: called once the service listens, in place of printing.
        ready_file: JSON with `url` and `metrics_url` is put there once the service listens.
    Raises:
        ConfigError: the address would be open to others without a key, or cannot be listened on.
        KeyboardInterrupt: SIGINT ended it.
    """
    path = workspace.path if isinstance(workspace, Workspace) else Path(workspace)
    settings = Settings(workspace=path, host=host, port=port, no_auth=no_auth, metrics_port=metrics_port)

    def told(bound: Bound) -> None:
        if ready_file is not None:
            parts.write_json(Path(ready_file), asdict(bound), replacing=True)
        if ready is not None:
            ready(bound)
        else:
            print(bound.url, flush=True)
            print(f"metrics at {bound.metrics_url}", file=sys.stderr, flush=True)

    with _prepared(settings, told) as server:
        server.run(sockets=[server.listening])
    if server.ended_by == signal.SIGINT:
        raise KeyboardInterrupt


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Bound]:
    """A service in a thread of this process for the time of a `with` block: tests, notebooks."""
    bound: list[Bound] = []
    listens = threading.Event()

    def told(where: Bound) -> None:
        bound.append(where)
        listens.set()

    with _prepared(settings, told) as server:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [server.listening]}, name="dataforge-serve")
        thread.start()
        try:
            while not listens.wait(0.05):
                if not thread.is_alive():
                    raise StreamError("the service did not start", hint="its log says why")
            yield bound[0]
        finally:
            server.drain.begin()
            server.should_exit = True
            thread.join()


class Server(uvicorn.Server):
    """uvicorn, with a drain before the end: `/readyz` says 503 first, then listening stops, then windows end."""

    def __init__(self, config: uvicorn.Config, drain: Drain, delay_s: float, listening: socket.socket) -> None:
        super().__init__(config)
        self.drain, self.listening = drain, listening
        self.ended_by: int | None = None
        self.on_listening: Callable[[], None] = lambda: None
        self._delay_s = delay_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_listening()

    async def on_tick(self, counter: int) -> bool:
        if self.drain.began and self.drain.seconds >= self._delay_s:
            self.should_exit = True
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on SIGTERM and SIGINT; give back the old handlers, and raise no signal a second time."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {kind: signal.signal(kind, self.handle_exit) for kind in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the drain; a SIGINT during it ends the process at once."""
        if self.drain.began and sig == signal.SIGINT:
            self.should_exit = self.force_exit = True
        self.ended_by = self.ended_by or sig
        self.drain.begin()


@contextlib.contextmanager
def _prepared(settings: Settings, ready: Ready) -> Iterator[Server]:
    """A server whose sockets are open and whose refusals are over."""
    _refuse_open_doors(settings)
    app = create_app(settings)
    service = app.state.service
    with contextlib.closing(_listen(settings.host, settings.port)) as listening:
        metrics = serve_metrics(service.metrics, settings.metrics_host, settings.metrics_port)
        try:
            config = uvicorn.Config(
                app,
                loop="auto" if sys.platform == "win32" else "uvloop",
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=int(settings.drain_s) + _FORCED_AFTER_S,
            )
            server = Server(config, service.drain, settings.drain_delay_s, listening)
            where = Bound(
                url=_url(settings.host, listening.getsockname()[1]),
                metrics_url=_url(settings.metrics_host, metrics.port) + "/metrics",
            )
            server.on_listening = lambda: ready(where)
            yield server
        finally:
            metrics.close()


def _refuse_open_doors(settings: Settings) -> None:
    """Raise ConfigError for an address that others can reach, unless they need a key and there is one."""
    if _is_loopback(settings.host):
        return
    if settings.no_auth:
        raise ConfigError(
            f"without keys everyone who reaches {settings.host} could read this workspace",
            hint="--no-auth is for loopback: leave it out and make a key with `dataforge keys create --scope ...`, "
            "or listen on 127.0.0.1",
        )
    workspace = Workspace(settings.workspace, create=False)
    if not any(key.state(time.time()) == "live" for key in KeyStore(workspace.path).all()):
        raise ConfigError(
            f"{settings.host} can be reached by others, and there is no live API key",
            where=str(settings.workspace),
            hint="make one with `dataforge keys create --scope ...`, or listen on 127.0.0.1",
        )


def _is_loopback(host: str) -> bool:
    """Whether every address that a host name stands for is loopback. Raises ConfigError if there is none."""
    return all(ipaddress.ip_address(str(told[4][0]).partition("%")[0]).is_loopback for told in _addresses(host, 0))


def _addresses(host: str, port: int) -> list[tuple]:
    try:
        return socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"{host!r} is no address of this machine: {error}", hint="use 127.0.0.1 or 0.0.0.0"
        ) from error


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = _addresses(host, port)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another --port, or 0 for a free one"
        ) from error
    return listening


def _url(host: str, port: int) -> str:
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}"
