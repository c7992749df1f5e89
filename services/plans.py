"""Sampling plans: POST builds one, and the same request again finds it; GET shows one with its draws by cluster."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from dataforge.config import config_from, fields_of
from dataforge.errors import ConfigError
from dataforge.plans.plan import PlanConfig, open_plan, plan, summary_lines
from dataforge.services.artifacts import opened, shown
from dataforge.services.auth import needs
from dataforge.services.jobs import id_of
from dataforge.services.schemas import ArtifactRef, Job, PlanMade, PlanShown, problems
from dataforge.stage import Run
from dataforge.workspace import Artifact, Ref, Workspace
from dataforge.workspace.artifact import check_name, folder_of

_WHOLE_NUMBERS = 1 << 63
router = APIRouter(tags=["plans"])


def _config_schema() -> dict[str, Any]:
    """The JSON schema of PlanConfig, with the text under each field as its description."""
    schema = TypeAdapter(PlanConfig).json_schema()
    for told in fields_of(PlanConfig):
        schema["properties"][told.name]["description"] = told.doc
    return schema | {"additionalProperties": False}


Reference = Annotated[str, Field(min_length=1, max_length=120, examples=["web", "web@5be1f0c2a934"])]


class PlanRequest(BaseModel):
    """What plan to build."""

    model_config = ConfigDict(extra="forbid", strict=True)

    clusters: Reference = Field(description="The clusters to draw from.")
    documents: Reference | None = Field(None, description="What may be drawn; by default what the clusters hold.")
    shards: Reference | None = Field(None, description="Token lengths, for a budget in tokens.")
    name: str | None = Field(None, max_length=63, description="The plan's name; by default that of the clusters.")
    config: Annotated[dict[str, Any], WithJsonSchema(_config_schema())] = Field(
        description="Budget, cap, sampler and seed: the settings of `dataforge plan`."
    )


def _config(values: dict[str, Any]) -> PlanConfig:
    """The settings of a request. Raises UnknownName with the nearest setting, or ConfigError."""
    _refuse_wild_numbers(values)
    return config_from(PlanConfig, values, where="config")


def _refuse_wild_numbers(value: Any) -> None:
    """JSON as Python reads it has NaN, infinities and whole numbers of any length; a config has none of them."""
    if isinstance(value, dict):
        for told in value.values():
            _refuse_wild_numbers(told)
    elif isinstance(value, list):
        for told in value:
            _refuse_wild_numbers(told)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{value} is no number that a config may hold", where="config")
    elif isinstance(value, int) and not -_WHOLE_NUMBERS <= value < _WHOLE_NUMBERS:
        raise ConfigError("a whole number in the config does not fit 64 bits", where="config")


class _Wanted:
    """A request that was understood: what to build from what, and the id it will have."""

    def __init__(self, workspace: Workspace, told: PlanRequest) -> None:
        self.workspace = workspace
        self.config = _config(told.config)
        self.clusters = workspace.open(told.clusters, "clusters")
        self.documents = None if told.documents is None else workspace.open(told.documents, "documents")
        self.shards = None if told.shards is None else workspace.open(told.shards, "shards")
        self.name = check_name(told.name) if told.name is not None else self.clusters.name
        self.ref = Ref("plans", self.name, self._make(Run(dry_run=True)).id)
        folder = folder_of(workspace.path, "plans", str(self.ref.id))
        self.is_there = folder is not None and (folder / "manifest.json").is_file()

    def _make(self, run: Run) -> Any:
        """The artifact, or with a dry run a Forecast of it."""
        inputs = {"documents": self.documents, "shards": self.shards}
        return plan(self.workspace, self.clusters, name=self.name, config=self.config, run=run, **inputs)

    def make(self) -> Artifact:
        """The plan: found, and then the name points to it, or built."""
        return self._make(Run())


@router.post(
    "/v1/plans",
    operation_id="buildPlan",
    dependencies=[needs("plans:write")],
    response_model=PlanMade,
    responses={
        200: {"description": "The same request made this plan before.", "model": PlanMade},
        201: {"description": "Made; `Location` has its URL.", "model": PlanMade},
        202: {"description": "It takes longer; `Location` has the job's URL.", "model": Job},
        **problems(404, 409, 413, 415),
    },
)
async def build_plan(request: Request, told: PlanRequest) -> Response:
    """Build a sampling plan. The same request always gives the same plan under the same id."""
    service = request.app.state.service
    wanted = await run_in_threadpool(_Wanted, service.workspace, told)
    if wanted.is_there:
        return _made(await run_in_threadpool(wanted.make), created=False)
    entry, begun = service.jobs.submit(wanted.ref, wanted.make)
    try:
        building = asyncio.wrap_future(entry.done)
        made = await asyncio.wait_for(asyncio.shield(building), service.settings.build_wait_s)
    except TimeoutError:
        return _later(service.jobs.show(id_of(entry.ref)))
    return _made(made, created=begun)


def _made(artifact: Artifact, *, created: bool) -> Response:
    told = PlanMade(id=artifact.id, ref=artifact.ref, name=artifact.name, created=created)
    return JSONResponse(told.model_dump(), 201 if created else 200, {"location": f"/v1/plans/{artifact.id}"})


def _later(job: Job) -> Response:
    return JSONResponse(job.model_dump(), 202, {"location": f"/v1/jobs/{job.id}", "retry-after": "1"})


@router.get(
    "/v1/plans/{ref}",
    operation_id="showPlan",
    dependencies=[needs("artifacts:read")],
    response_model=PlanShown,
    responses=problems(404, 409),
)
def show_plan(request: Request, ref: ArtifactRef) -> Any:
    """One plan: its manifest, and the draws of each cluster."""
    artifact = opened(request, "plans", ref)
    held = open_plan(artifact)
    return shown(artifact) | {
        "num_draws": held.num_draws,
        "num_documents": held.num_documents,
        "sizes": held.sizes_C.tolist(),
        "draws_by_cluster": held.draws_per_cluster.tolist(),
        "summary": summary_lines(held),
    }
