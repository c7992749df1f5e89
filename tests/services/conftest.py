"""A workspace with the whole chain up to rows, small and real, and clients for a service over it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient
from tiny_rows import artifact_of

from dataforge.corpus import Documents, IngestConfig, ingest
from dataforge.dedup import dedup
from dataforge.make import make
from dataforge.plans.plan import PlanConfig, plan
from dataforge.rows.pack import PackConfig, pack
from dataforge.services.app import create_app
from dataforge.services.keys import SCOPES, create_key
from dataforge.services.settings import Settings
from dataforge.shards.tokenize import tokenize
from dataforge.stage import Inputs, Out, Part, PartOut, part_key
from dataforge.tokenizers import train
from dataforge.workspace import Artifact, Counts, Workspace

CORPUS = Path(__file__).parents[1] / "corpus_tiny"


@dataclass(frozen=True)
class LabelConfig:
    num_clusters: int = 7


@dataclass(frozen=True)
class Label:
    """A clusters artifact without vectors: the label of a document is its number modulo the number of clusters."""

    config: LabelConfig
    kind = "clusters"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        return [Part("part-00000.parquet", part_key(self, inputs["documents"].content))]

    def open_worker(self, inputs: Inputs) -> Documents:
        return Documents(inputs["documents"])

    def run_part(self, worker: Documents, part: Part, out: PartOut) -> Counts:
        numbers = worker.training_numbers()
        labels = (numbers % self.config.num_clusters).astype(np.int32)
        pq.write_table(pa.table({"number": numbers, "label": labels}), out.path)
        return Counts()

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        return Counts(extra={"clusters": self.config.num_clusters})


@dataclass(frozen=True)
class Made:
    """The artifacts of the chain."""

    workspace: Workspace
    documents: Artifact
    clusters: Artifact
    tokenizer: Artifact
    plan: Artifact
    shards: Artifact
    rows: Artifact


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One workspace for all tests that change nothing in it but plans."""
    folder = tmp_path_factory.mktemp("served")
    workspace = Workspace(folder / "workspace")
    documents = dedup(
        workspace, ingest(workspace, [CORPUS], name="raw", config=IngestConfig(holdout=0.05)), name="tiny"
    )
    clusters = make(workspace, Label(LabelConfig()), {"documents": documents}, name="tiny")
    texts = [row["text"] for row in Documents(documents).get(range(0, 40), ["text"])]
    tokenizer = artifact_of(workspace, "tokenizers", train(texts, vocab_size=400, special_tokens=["<|end|>"]).save)
    workspace.point("tokenizers", "tiny", tokenizer.id)
    made = plan(workspace, clusters, name="tiny", config=PlanConfig(num_draws=400, seed=5))
    shards = tokenize(workspace, documents, tokenizer, name="tiny")
    rows = pack(workspace, made, shards, name="tiny", config=PackConfig(row_length=64))
    return Made(workspace, documents, clusters, tokenizer, made, shards, rows)


@pytest.fixture
def own_chain(chain: Made, tmp_path: Path) -> Made:
    """A copy of the chain that a test may damage."""
    workspace = Workspace(
        shutil.copytree(chain.workspace.path, tmp_path / "own", ignore=shutil.ignore_patterns("service"))
    )
    artifacts = (chain.documents, chain.clusters, chain.tokenizer, chain.plan, chain.shards, chain.rows)
    return Made(workspace, *(workspace.open(artifact.ref) for artifact in artifacts))


@contextlib.contextmanager
def client_of(workspace: Workspace, key: str | None = None, **settings: Any) -> Iterator[TestClient]:
    """A client of a service over a workspace; without a key the service asks for none."""
    told = Settings(workspace=workspace.path, no_auth=key is None, **settings)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    with TestClient(
        create_app(told), base_url="http://127.0.0.1", headers=headers, raise_server_exceptions=False
    ) as client:
        yield client


@pytest.fixture(scope="session")
def open_client(chain: Made) -> Iterator[TestClient]:
    """A client of a service that asks for no keys."""
    with client_of(chain.workspace) as client:
        yield client


@pytest.fixture(scope="session")
def key(chain: Made) -> str:
    """A key that may do everything."""
    return create_key(chain.workspace, scopes=SCOPES, label="tests")


@pytest.fixture(scope="session")
def client(chain: Made, key: str) -> Iterator[TestClient]:
    """A client with a key that may do everything."""
    with client_of(chain.workspace, key) as client:
        yield client


Check = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def problem(chain: Made) -> Check:
    """Check that a response is a problem of that status and type, in the one shape, without paths of this machine."""

    def check(response: Any, status: int, slug: str) -> dict[str, Any]:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        told = response.json()
        assert set(told) <= {"type", "status", "title", "detail", "instance", "artifact", "hint", "errors"}, told
        assert told["type"] == f"/problems/{slug}"
        assert told["status"] == status
        assert told["title"]
        assert told["instance"] == f"urn:uuid:{response.headers['x-request-id']}"
        assert response.headers["cache-control"] == "no-store"
        for leak in (str(chain.workspace.path), str(Path.home()), tempfile.gettempdir(), "Traceback", ".py"):
            assert leak not in response.text, leak
        return told

    return check


@pytest.fixture(scope="session")
def served() -> Any:
    """`client_of`, for tests that need a service of their own."""
    return client_of
