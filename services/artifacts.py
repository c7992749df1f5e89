"""Artifacts to list and to show: six kinds as resources of their own, every kind under `/v1/artifacts`."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from dataforge.services.auth import needs
from dataforge.services.problems import InvalidRequest
from dataforge.services.schemas import (
    ArtifactList,
    ArtifactRef,
    ArtifactShown,
    ArtifactSummary,
    KindName,
    KindPage,
    Page,
    problems,
)
from dataforge.workspace import Artifact, Ref, Workspace

KINDS = ("documents", "clusters", "plans", "tokenizers", "shards", "rows")
"""Kinds with a resource of their own."""

router = APIRouter()


def page_of(workspace: Workspace, kind: str | None, page: Page) -> ArtifactList:
    """One page of the whole artifacts of a kind, or of all, ordered by kind and folder name.

    A token says which artifact the page before ended with, so pages neither repeat nor leave out anything when
    artifacts come or go between them. Only the manifests of the page are read.
    """
    after = _after(page.page_token, kind) if page.page_token is not None else ("", "")
    places = [(folder.parent.name, folder.name) for folder in workspace.folders(kind)]
    left = [place for place in sorted(places) if place > after]
    found = [Artifact.at(workspace.path / home / folder) for home, folder in left[: page.page_size]]
    more = len(left) > page.page_size
    return ArtifactList(
        artifacts=[summary_of(artifact) for artifact in found],
        next_page_token=_token(kind, left[page.page_size - 1]) if more else None,
    )


def summary_of(artifact: Artifact) -> ArtifactSummary:
    """An artifact in a list."""
    manifest = artifact.manifest
    return ArtifactSummary(
        ref=artifact.ref,
        kind=artifact.kind,
        name=artifact.name,
        id=artifact.id,
        content=manifest.content,
        counts=manifest.counts,
    )


def shown(artifact: Artifact) -> dict[str, Any]:
    """An artifact on its own: its manifest as it is on disk."""
    return {"ref": artifact.ref, "name": artifact.name, "manifest": artifact.manifest.to_json()}


def opened(request: Request, kind: str, ref: str) -> Artifact:
    """The artifact that a path names. Raises ArtifactNotFound or ArtifactIncomplete."""
    workspace: Workspace = request.app.state.service.workspace
    return workspace.open(Ref.parse(f"{kind}/{ref}", kind))


def _token(kind: str | None, place: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode("/".join((kind or "", *place)).encode()).decode().rstrip("=")


def _after(token: str, kind: str | None) -> tuple[str, str]:
    """The place that a page token names; all it can do is choose where a list begins."""
    try:
        told = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode("ascii")
        of_kind, home, folder = told.split("/")
    except (binascii.Error, ValueError):
        of_kind = home = folder = ""
    if not home or not folder or of_kind != (kind or ""):
        raise InvalidRequest("page_token is not one of this list", hint="give `next_page_token` of the page before")
    return home, folder


@router.get(
    "/v1/artifacts",
    operation_id="listArtifacts",
    tags=["artifacts"],
    dependencies=[needs("artifacts:read")],
    response_model=ArtifactList,
    responses=problems(),
)
def list_artifacts(request: Request, page: Annotated[KindPage, Query()]) -> Any:
    """Whole artifacts of every kind, or of one."""
    return page_of(request.app.state.service.workspace, page.kind, page)


@router.get(
    "/v1/artifacts/{kind}/{ref}",
    operation_id="showArtifact",
    tags=["artifacts"],
    dependencies=[needs("artifacts:read")],
    response_model=ArtifactShown,
    responses=problems(404, 409),
)
def show_artifact(request: Request, kind: KindName, ref: ArtifactRef) -> Any:
    """One artifact of any kind."""
    return shown(opened(request, kind, ref))


def _add_kind(kind: str, scopes: tuple[str, ...]) -> None:
    title = kind.capitalize()

    def list_kind(request: Request, page: Annotated[Page, Query()]) -> Any:
        return page_of(request.app.state.service.workspace, kind, page)

    def show_kind(request: Request, ref: ArtifactRef) -> Any:
        return shown(opened(request, kind, ref))

    told: dict[str, Any] = {"tags": [kind], "dependencies": [needs(*scopes)]}
    router.add_api_route(
        f"/v1/{kind}",
        list_kind,
        operation_id=f"list{title}",
        summary=f"List {title}",
        response_model=ArtifactList,
        responses=problems(),
        **told,
    )
    if kind == "plans":  # shown with more than the manifest: `plans.py`
        return
    router.add_api_route(
        f"/v1/{kind}/{{ref}}",
        show_kind,
        operation_id=f"show{title}",
        summary=f"Show {title}",
        response_model=ArtifactShown,
        responses=problems(404, 409),
        **told,
    )


for _kind in KINDS:
    _add_kind(_kind, ("artifacts:read", "rows:read") if _kind == "rows" else ("artifacts:read",))
