"""Every error as an RFC 9457 problem: the three parts of a DataforgeError, and nothing of this machine.

`{"type": "/problems/<slug>", "status", "title", "detail", "instance", "artifact"?, "hint"?}`; a request that does not
fit its schema also has `errors`, one entry a fault. `instance` is the request's id, which the log carries too.
"""

from __future__ import annotations

import http
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from dataforge.errors import AccessDenied, DataforgeError, Forbidden
from dataforge.streams.problems import problem_of

MEDIA_TYPE = "application/problem+json"
_LOG = logging.getLogger("dataforge.services")
_MAX_FAULTS = 20
_MAX_WORD = 200


class HttpError(DataforgeError):
    """Something that only exists over HTTP; `headers` go with the answer."""

    headers: ClassVar[Mapping[str, str]] = {}


class NoSuchRoute(HttpError):
    """The URL leads nowhere."""

    status = 404


class MethodNotAllowed(HttpError):
    """The resource does not know this method."""

    status = 405


class InvalidRequest(HttpError):
    """Path, query, headers or body do not fit the schema."""

    status = 422


class BodyTooLarge(HttpError):
    """The request body is larger than allowed."""

    status = 413
    headers: ClassVar[Mapping[str, str]] = {"connection": "close"}  # what is left of the body is not read


class UnsupportedEncoding(HttpError):
    """A compressed request body."""

    status = 415


class TooManyWindows(HttpError):
    """One key has as many windows under way as it may."""

    status = 429
    headers: ClassVar[Mapping[str, str]] = {"retry-after": "1"}


class Overloaded(HttpError):
    """The process has as much to do as it may; nothing was begun."""

    status = 503
    headers: ClassVar[Mapping[str, str]] = {"retry-after": "1"}


class Unavailable(HttpError):
    """Something this request needs cannot be reached now."""

    status = 503
    headers: ClassVar[Mapping[str, str]] = {"retry-after": "5"}


class NotReady(HttpError):
    """This process should get no new requests."""

    status = 503


class Scrubber:
    """Takes this machine's paths out of a text: the workspace's own become relative, others keep their last part.

    >>> Scrubber(Path("/data/ws")).text("/data/ws/rows/a@0123 is not /srv/models/x.bin, see /v1/rows/a")
    'rows/a@0123 is not x.bin, see /v1/rows/a'
    """

    _PATH = re.compile(r"(?<![\w:/.@)}\]])/(?!v1/|problems/)(?:[^\s/'\"`,;:()]+/)+([^\s/'\"`,;:()]*)")

    def __init__(self, workspace: Path) -> None:
        roots = {str(workspace), str(workspace.absolute()), str(workspace.resolve())}
        self._roots = sorted((root for root in roots if root not in ("", ".", "/")), key=len, reverse=True)

    def text(self, text: str) -> str:
        for root in self._roots:
            text = text.replace(root + "/", "").replace(root, "the workspace")
        return self._PATH.sub(lambda found: found[1] or "a folder", text)

    def problem(self, error: DataforgeError, instance: str) -> dict[str, Any]:
        """The problem document of an error."""
        told = {
            name: self.text(value) if isinstance(value, str) and name != "type" else value
            for name, value in problem_of(error).items()
        }
        if told.get("artifact") == "the workspace":
            del told["artifact"]
        return told | {"instance": instance}


def instance_of(scope: Mapping[str, Any]) -> str:
    """The request's id as a URI."""
    return f"urn:uuid:{scope.get('state', {}).get('request_id', '00000000-0000-0000-0000-000000000000')}"


def respond(scope: Mapping[str, Any], scrubber: Scrubber, error: Exception) -> Response:
    """The response for any exception. What is not a stated error is logged with its trace and told as 500."""
    if isinstance(error, HTTPException) and isinstance(error.__cause__, DataforgeError):
        error = error.__cause__  # raised while the framework was reading the body
    faults: list[dict[str, str]] = []
    if isinstance(error, RequestValidationError):
        faults = [_fault(told) for told in error.errors()[:_MAX_FAULTS]]
        stated: DataforgeError = InvalidRequest(
            "; ".join(f"{fault['where']}: {fault['detail']}" for fault in faults) or "the request does not fit",
            hint="the OpenAPI description at /openapi.json has every field and its bounds",
        )
    elif isinstance(error, HTTPException):
        return _of_http(scope, error)
    elif isinstance(error, DataforgeError):
        stated = error
    else:
        stated = DataforgeError(
            "something went wrong inside the service", hint="the service's log has more under this request's id"
        )
    if stated.status >= 500 and not isinstance(stated, HttpError):
        _LOG.error("%s %s", instance_of(scope), scope.get("path"), exc_info=error)
    told = scrubber.problem(stated, instance_of(scope))
    if stated.slug() == "dataforge":
        told |= {"type": "/problems/internal", "title": "Internal error"}
    if faults:
        told["errors"] = faults
    return problem_response(told, headers_of(stated))


def headers_of(error: DataforgeError) -> dict[str, str]:
    """Headers that go with an error: how to identify oneself, when to come again."""
    if isinstance(error, HttpError):
        return dict(error.headers)
    if isinstance(error, Forbidden):
        return {"www-authenticate": 'Bearer realm="dataforge", error="insufficient_scope"'}
    if isinstance(error, AccessDenied):
        return {"www-authenticate": 'Bearer realm="dataforge"'}
    return {"retry-after": "1"} if error.status == 503 else {}


def problem_response(told: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A problem document as a response. It is not to be cached."""
    body = json.dumps(told, ensure_ascii=False).encode()
    return Response(body, told["status"], {"cache-control": "no-store", **(headers or {})}, MEDIA_TYPE)


def _of_http(scope: Mapping[str, Any], error: HTTPException) -> Response:
    """What the framework raises by itself: no route, a wrong method, a body that is no JSON."""
    path, method = str(scope.get("path"))[:_MAX_WORD], str(scope.get("method"))[:20]
    if error.status_code == 404:
        stated: DataforgeError = NoSuchRoute(f"nothing is at {path}", hint="/openapi.json lists every route")
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", (error.headers or {}).get("allow", ""))
        stated = MethodNotAllowed(f"{path} does not know {method}", hint=f"use {allowed}" if allowed else None)
    elif error.status_code == 400:  # bytes that are no text, or JSON nested deeper than it is read
        stated = InvalidRequest("the request body cannot be read as JSON")
    else:
        phrase = http.HTTPStatus(error.status_code).phrase
        told = {"type": f"/problems/{phrase.lower().replace(' ', '-')}", "status": error.status_code, "title": phrase}
        text = {"detail": str(error.detail)[:_MAX_WORD], "instance": instance_of(scope)}
        return problem_response(told | text, error.headers)
    return problem_response(problem_of(stated) | {"instance": instance_of(scope)}, error.headers)


def _fault(told: Mapping[str, Any]) -> dict[str, str]:
    """One fault of a request, without the value that was sent."""
    place = [str(step)[:_MAX_WORD] for step in told["loc"]]
    return {"where": ".".join(place), "detail": str(told["msg"])[:_MAX_WORD]}


def install(app: FastAPI, scrubber: Scrubber) -> None:
    """Let the app answer every exception that a route raises with a problem."""

    async def handler(request: Request, error: Exception) -> Response:
        return respond(request.scope, scrubber, error)

    for kind in (DataforgeError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, handler)
