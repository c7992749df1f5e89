"""Is this process alive, and should it get requests? Both are answered without a key and tell nothing but that."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from dataforge.services.problems import NotReady
from dataforge.services.schemas import Health

router = APIRouter(tags=["health"])


@router.get("/livez", operation_id="livez", response_model=Health)
async def livez() -> Any:
    """The event loop turns."""
    return Health(status="ok", checks={})


@router.get("/readyz", operation_id="readyz", response_model=Health, responses={503: {"description": "Not ready."}})
def readyz(request: Request) -> Any:
    """Whether to send requests here: not while draining, not without the workspace.

    If the key database is out of reach the answer is `degraded` but still 200: keys seen lately go on, and so do their
    streams. Taking every process out of service at once would help nobody.
    """
    service = request.app.state.service
    checks = {
        "drain": "draining" if service.drain.began else "ok",
        "workspace": "ok" if (service.workspace.path / "dataforge.json").is_file() else "out of reach",
        "keys": "ok" if service.authenticator is None or service.authenticator.reachable else "out of reach",
    }
    if service.drain.began or checks["workspace"] != "ok":
        bad = ", ".join(f"{name}: {state}" for name, state in checks.items() if state != "ok")
        raise NotReady(f"not ready: {bad}", hint="ask another server, or again later")
    return Health(status="ok" if checks["keys"] == "ok" else "degraded", checks=checks)
