"""What many tests start from: the bundled 198 documents and an empty workspace."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dataforge.corpus import IngestConfig, ingest
from dataforge.dedup import dedup
from dataforge.workspace import Artifact, Workspace

CORPUS = Path(__file__).parent / "corpus_tiny"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of two JSONL files, 198 documents, three of them copies; the test's own, to change as it likes."""
    return Path(shutil.copytree(CORPUS, tmp_path / "corpus_tiny"))


@pytest.fixture
def documents(workspace: Workspace, corpus: Path) -> Artifact:
    """The bundled documents, deduplicated, about 5 % of them held out."""
    ingested = ingest(workspace, [corpus], name="tiny", config=IngestConfig(holdout=0.05))
    return dedup(workspace, ingested, name="tiny-dedup")
