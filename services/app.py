"""The application: `create_app(settings)`. What it holds is opened and closed with it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import Route

from dataforge.services import artifacts, health, jobs, plans, problems, streams
from dataforge.services.auth import Authenticator, AuthMiddleware
from dataforge.services.boundary import BodyLimit, Boundary
from dataforge.services.drain import Drain
from dataforge.services.jobs import Jobs
from dataforge.services.keys import KeyStore
from dataforge.services.metrics import Metrics
from dataforge.services.schemas import Problem
from dataforge.services.settings import Settings
from dataforge.services.streams import WINDOW_PATH, OpenRows, Windows, window_operation
from dataforge.workspace import Workspace

_TITLE = "dataforge"
_ABOUT = (
    "Sampling plans over REST, and training rows as a stream of bytes. Every error is an RFC 9457 problem. "
    "Every route but health asks for `Authorization: Bearer <key>`."
)


@dataclass(frozen=True)
class Service:
    """What the routes work with, at `app.state.service`."""

    settings: Settings
    workspace: Workspace
    metrics: Metrics
    drain: Drain
    scrubber: problems.Scrubber
    authenticator: Authenticator | None
    """None where the service runs without keys."""
    rows: OpenRows
    jobs: Jobs


def create_app(settings: Settings) -> FastAPI:
    """The service over one workspace, which must exist.

    Whoever runs it decides where it listens: `server.serve` also refuses addresses that would be open to others.

    Raises:
        WorkspaceError: there is no workspace, or one of a later format.
    """
    workspace = Workspace(settings.workspace, create=False)
    metrics, scrubber = Metrics(), problems.Scrubber(workspace.path)
    store = KeyStore(workspace.path)
    service = Service(
        settings=settings,
        workspace=workspace,
        metrics=metrics,
        drain=Drain(settings.drain_s),
        scrubber=scrubber,
        authenticator=None if settings.no_auth else Authenticator(store, settings.auth_cache_s, settings.auth_grace_s),
        rows=OpenRows(workspace, settings.max_open_rows, metrics),
        jobs=Jobs(workspace, scrubber, metrics, settings.max_waiting_jobs),
    )
    threads = ThreadPoolExecutor(settings.gather_threads, thread_name_prefix="dataforge-gather")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.jobs.start()
        try:
            yield
        finally:
            service.jobs.close()
            threads.shutdown(wait=False, cancel_futures=True)
            service.rows.close()

    app = FastAPI(title=_TITLE, version=version("dataforge-lm"), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    windows = Windows(service.rows, settings, metrics, threads, service.drain.overdue)
    app.router.routes.append(Route(WINDOW_PATH, windows, methods=["GET"]))  # before /v1/rows/{ref}/{row}
    for part in (health, artifacts, plans, streams, jobs):
        app.include_router(part.router)
    problems.install(app, scrubber)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(AuthMiddleware, authenticator=service.authenticator)
    app.add_middleware(Boundary, metrics=metrics, scrubber=scrubber)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with what FastAPI does not see: the raw window route, and the shape of problems."""
    if app.openapi_schema is None:
        told = get_openapi(title=_TITLE, version=app.version, description=_ABOUT, routes=app.routes)
        told["paths"][WINDOW_PATH] = {"get": window_operation()}
        schemas = told.setdefault("components", {}).setdefault("schemas", {})
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {"Problem": schema}
        app.openapi_schema = told
    return app.openapi_schema
