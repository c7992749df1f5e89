"""Work that outlasts a request: done one at a time by a thread of this process, its result an artifact.

A job's id is the reference of what it makes, `plans.web@5be1f0c2a934`, so it needs no memory: after a restart the files
tell whether the artifact is whole (`succeeded`) or was begun (`interrupted`: the same POST goes on from its finished
parts), and asking twice never builds twice.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from dataforge.errors import ArtifactIncomplete, ArtifactNotFound, DataforgeError
from dataforge.services.auth import needs
from dataforge.services.metrics import Metrics
from dataforge.services.problems import Overloaded, Scrubber
from dataforge.services.schemas import ID, KIND, NAME, Job, JobList, JobState, problems
from dataforge.workspace import Artifact, Ref, Workspace
from dataforge.workspace.artifact import find

_LOG = logging.getLogger("dataforge.services")
_KEPT = 1000
router = APIRouter(tags=["jobs"])

JobId = Annotated[
    str, Path(pattern=rf"^{KIND}\.{NAME}@{ID}$", description="Id of the job.", examples=["plans.web@5be1f0c2a934"])
]


@dataclass
class Entry:
    """A job of this process."""

    ref: Ref
    work: Callable[[], Artifact]
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    ended_at: float | None = None
    done: Future[Artifact] = field(default_factory=Future)

    @property
    def state(self) -> JobState:
        if self.done.done():
            return "failed" if self.done.exception() else "succeeded"
        return "waiting" if self.started_at is None else "running"


def id_of(ref: Ref) -> str:
    """The id of the job that makes an artifact."""
    return f"{ref.kind}.{ref.name}@{ref.id}"


class Jobs:
    """The jobs of one process. Its thread is a daemon: a stage killed at any instant goes on from its whole parts."""

    def __init__(self, workspace: Workspace, scrubber: Scrubber, metrics: Metrics, most_waiting: int) -> None:
        self._workspace, self._scrubber, self._metrics, self._most_waiting = workspace, scrubber, metrics, most_waiting
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._waiting: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to work."""
        threading.Thread(target=self._work, name="dataforge-jobs", daemon=True).start()

    def close(self) -> None:
        """Take no further job up; one that runs is left to end, or to die with the process."""
        self._waiting.put(None)

    def submit(self, ref: Ref, work: Callable[[], Artifact]) -> tuple[Entry, bool]:
        """The job that makes `ref`, and whether this call began it: one that waits or runs is joined.

        Raises:
            Overloaded: too many jobs wait.
        """
        with self._lock:
            job_id = id_of(ref)
            known = self._entries.get(job_id)
            if known is not None and not known.done.done():
                return known, False
            unfinished = sum(not entry.done.done() for entry in self._entries.values())
            if unfinished >= self._most_waiting:
                raise Overloaded(f"{unfinished} jobs wait already", hint="ask again when one of them is done")
            self._entries.pop(job_id, None)
            entry = self._entries[job_id] = Entry(ref, work)
            ended = [key for key, held in self._entries.items() if held.done.done()]
            for old in ended[: max(0, len(self._entries) - _KEPT)]:
                del self._entries[old]
        self._metrics.jobs_waiting.inc()
        self._waiting.put(entry)
        return entry, True

    def _work(self) -> None:
        while (entry := self._waiting.get()) is not None:
            entry.started_at = time.time()
            try:
                made = entry.work()
            except Exception as error:  # told to whoever asks for the job
                if not isinstance(error, DataforgeError):
                    _LOG.exception("job %s", id_of(entry.ref))
                entry.ended_at = time.time()
                entry.done.set_exception(error)
            else:
                entry.ended_at = time.time()
                entry.done.set_result(made)
            self._metrics.jobs_waiting.dec()
            self._metrics.jobs.labels(entry.state).inc()

    def show(self, job_id: str) -> Job:
        """A job by id, from memory or from the files it left. Raises ArtifactNotFound."""
        with self._lock:
            entry = self._entries.get(job_id)
        return self._told(job_id, entry) if entry else self._from_files(job_id)

    def list(self) -> list[Job]:
        """The jobs that this process remembers, newest first."""
        with self._lock:
            entries = list(self._entries.items())
        return [self._told(job_id, entry) for job_id, entry in reversed(entries)]

    def _told(self, job_id: str, entry: Entry) -> Job:
        error = entry.done.exception() if entry.done.done() else None
        problem = None
        if error is not None:
            stated = (
                error if isinstance(error, DataforgeError) else DataforgeError("something went wrong inside the job")
            )
            problem = self._scrubber.problem(stated, f"/v1/jobs/{job_id}")
        return Job(
            id=job_id,
            state=entry.state,
            artifact=str(entry.ref),
            created_at=entry.created_at,
            started_at=entry.started_at,
            ended_at=entry.ended_at,
            result=_url(entry.ref) if entry.state == "succeeded" else None,
            problem=problem,
        )

    def _from_files(self, job_id: str) -> Job:
        kind, _, named = job_id.partition(".")
        ref = Ref.parse(f"{kind}/{named}", kind)
        assert ref.id is not None, "the route's pattern asks for an id"
        try:
            find(self._workspace.path, kind, ref.id)
        except ArtifactIncomplete:
            return Job(id=job_id, state="interrupted", artifact=str(ref))
        except ArtifactNotFound as error:
            raise ArtifactNotFound(
                f"there is no job {job_id}", hint="jobs are named after what they make; POST again to begin one"
            ) from error
        return Job(id=job_id, state="succeeded", artifact=str(ref), result=_url(ref))


def _url(ref: Ref) -> str:
    return f"/v1/{ref.kind}/{ref.id}"


@router.get(
    "/v1/jobs",
    operation_id="listJobs",
    dependencies=[needs("jobs:read")],
    response_model=JobList,
    responses=problems(),
)
def list_jobs(request: Request) -> Any:
    """The jobs that this process remembers, newest first."""
    return JobList(jobs=request.app.state.service.jobs.list())


@router.get(
    "/v1/jobs/{job_id}",
    operation_id="showJob",
    dependencies=[needs("jobs:read")],
    response_model=Job,
    responses=problems(404),
)
def show_job(request: Request, job_id: JobId) -> Any:
    """One job: its state, and what it made or why it failed."""
    return request.app.state.service.jobs.show(job_id)
