"""What the service counts: rate, errors and duration by route, and the streams. Served on a port of its own."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from dataforge.errors import ConfigError

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one process. Routes are counted by template, never by the path that was asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        by_route = ("method", "route", "status")
        self._requests = Counter("dataforge_http_requests", "Requests answered.", by_route, registry=self.registry)
        self._seconds = Histogram(
            "dataforge_http_request_seconds",
            "From the request's head to the end of the answer.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("dataforge_http_requests_in_flight", "Requests being answered.", registry=self.registry)
        self.windows_in_flight = Gauge(
            "dataforge_stream_windows_in_flight", "Windows under way.", registry=self.registry
        )
        self.windows = Counter(
            "dataforge_stream_windows",
            "Windows by how they ended: whole, cut (drain, error, slow or gone reader), not-modified.",
            ("end",),
            registry=self.registry,
        )
        self.rows = Counter("dataforge_stream_rows", "Rows in windows that went out whole.", registry=self.registry)
        self.bytes = Counter(
            "dataforge_stream_bytes", "Bytes of windows handed to the network.", registry=self.registry
        )
        self.prepare_seconds = Histogram(
            "dataforge_stream_prepare_seconds",
            "From a window's request to its head: rows found, pages checked.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.corrupt = Counter("dataforge_corrupt_data", "Requests that met damaged data.", registry=self.registry)
        self.jobs = Counter("dataforge_jobs", "Jobs by how they ended.", ("state",), registry=self.registry)
        self.jobs_waiting = Gauge("dataforge_jobs_waiting", "Jobs that wait or run.", registry=self.registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


@dataclass(frozen=True)
class MetricsServer:
    """The small server of `/metrics`."""

    port: int
    _server: WSGIServer
    _thread: Thread

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def serve_metrics(metrics: Metrics, host: str, port: int) -> MetricsServer:
    """Serve the counters from a thread; port 0 takes a free one. Raises ConfigError if the port is taken."""
    try:
        server, thread = start_http_server(port, host, registry=metrics.registry)
    except OSError as error:
        raise ConfigError(
            f"metrics cannot be served at {host}:{port}: {error.strerror}", hint="choose another --metrics-port, or 0"
        ) from error
    return MetricsServer(server.server_port, server, thread)
