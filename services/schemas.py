"""What goes over the wire as JSON. Field names are those of manifests and of the Python API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
ID = r"[0-9a-f]{12}"
KIND = r"[a-z][a-z-]{0,31}"

ArtifactRef = Annotated[
    str,
    Path(
        pattern=rf"^{NAME}(@{ID})?$",
        description="A name (where it points now), an id, or name@id.",
        examples=["web", "5be1f0c2a934", "web@5be1f0c2a934"],
    ),
]
KindName = Annotated[str, Path(pattern=rf"^{KIND}$", description="Kind of artifact.", examples=["embeddings"])]
RowNumber = Annotated[int, Path(ge=0, lt=1 << 62, description="Number of the row, from 0.")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """An error, RFC 9457. `title` and `type` say what kind, `detail` what happened, `hint` what to do."""

    type: str = Field(examples=["/problems/artifact-not-found"])
    status: int
    title: str
    detail: str | None = None
    instance: str = Field(description="The request's id, also in the header x-request-id and in the log.")
    artifact: str | None = Field(None, description="Where it happened.")
    hint: str | None = None
    errors: list[Fault] | None = Field(None, description="Where the request does not fit its schema.")


class Fault(BaseModel):
    """One value that does not fit."""

    where: str = Field(examples=["query.page_size"])
    detail: str


class Page(_Model):
    """Which page of a list."""

    page_size: Annotated[int, Query(ge=1, le=1000, description="Most entries of a page.")] = 100
    page_token: Annotated[
        str | None, Query(max_length=512, description="`next_page_token` of the page before; none for the first.")
    ] = None


class KindPage(Page):
    """Which page of all artifacts, or of one kind's."""

    kind: Annotated[str | None, Query(pattern=rf"^{KIND}$", description="Only artifacts of this kind.")] = None


class ArtifactSummary(_Model):
    """An artifact in a list."""

    ref: str = Field(examples=["plans/web@5be1f0c2a934"])
    kind: str
    name: str
    id: str
    content: str = Field(description="Content digest: equal digests, equal content.")
    counts: dict[str, Any] = Field(description="What came in, went out and was dropped, and further figures.")


class ArtifactList(_Model):
    """One page of artifacts, ordered by kind and folder name."""

    artifacts: list[ArtifactSummary]
    next_page_token: str | None = Field(None, description="None on the last page.")


class ArtifactShown(_Model):
    """One artifact."""

    ref: str
    name: str
    manifest: dict[str, Any] = Field(description="The manifest as it is on disk: kind, config, inputs, counts, parts.")


class PlanShown(ArtifactShown):
    """One sampling plan."""

    num_draws: int
    num_documents: int
    sizes: list[int] = Field(description="Documents in each cluster.")
    draws_by_cluster: list[int] = Field(description="Draws of each cluster; they sum to `num_draws`.")
    summary: list[str] = Field(description="The plan in words.")


class PlanMade(_Model):
    """A plan that is there now."""

    id: str
    ref: str
    name: str
    created: bool = Field(description="False if the same request had made it before.")


JobState = Literal["waiting", "running", "succeeded", "failed", "interrupted"]


class Job(_Model):
    """A piece of work that takes longer than a request."""

    id: str = Field(examples=["plans.web@5be1f0c2a934"])
    state: JobState = Field(
        description="`interrupted`: begun by a process that is gone; the same POST goes on with it."
    )
    artifact: str = Field(description="What it makes.")
    created_at: float | None = Field(None, description="Seconds since 1970; none where only the files tell of the job.")
    started_at: float | None = None
    ended_at: float | None = None
    result: str | None = Field(None, description="URL of what it made.")
    problem: dict[str, Any] | None = Field(None, description="Why it failed, RFC 9457.")


class JobList(_Model):
    """The jobs of this process, newest first."""

    jobs: list[Job]


class Segment(BaseModel):
    """A stretch of a row's tokens and where it came from."""

    row_offset: int = Field(description="Its first token within the row.")
    length: int
    document: int = Field(description="Document number.")
    offset: int = Field(description="Its first token within the document.")
    id: str = Field(description="The document's id.")
    source: str | None
    file: str = Field(description="Input file that the document came from.")
    position: int = Field(description="Line or row in that file, from 1.")
    draw: int = Field(description="Position in the plan.")
    cluster: int
    epoch: int = Field(description="How often the plan had drawn the document before.")
    reason: dict[str, Any] = Field(description="Why the plan drew it there.")


class RowShown(BaseModel):
    """One row with where every token came from."""

    row: int
    num_tokens: int
    rows: str = Field(examples=["rows/web@0c9d2f6b81aa"])
    plan: str = Field(examples=["plans/web@5be1f0c2a934"])
    token_ids: list[int] = Field(description="L+1 ids: inputs are all but the last, labels all but the first.")
    segments: list[Segment]


class Health(_Model):
    """What this process says of itself."""

    status: Literal["ok", "degraded"]
    checks: dict[str, str]


Problem.model_rebuild()


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the problems a route may answer with; those that every route has are added."""
    every = sorted({*statuses, 401, 403, 422, 500, 503})
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _MEANING[status], "content": content} for status in every}


_MEANING = {
    401: "No API key, or no valid one.",
    403: "The key's scopes do not allow this.",
    404: "No such artifact or job.",
    409: "The workspace refuses: the artifact is unfinished, or was made differently before.",
    413: "The request body is too large.",
    415: "The request body is compressed.",
    422: "The request does not fit, or cannot be met; `detail` has the numbers.",
    429: "Too many windows under way with this key.",
    500: "Data on disk is damaged, or the service has a fault.",
    503: "Overloaded, draining, or keys cannot be checked; try again after `Retry-After`.",
}
