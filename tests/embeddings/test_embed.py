"""The `embed` stage: a unit row for every kept document, the same bytes however it is run."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kill_points import run_and_kill

from dataforge.corpus import Documents, append, ingest
from dataforge.dedup import dedup
from dataforge.embeddings import EmbedConfig, Matrix, embed, embedders
from dataforge.errors import ConfigError, CorruptData, UnknownName, WorkspaceError
from dataforge.runners import ProcessPool
from dataforge.stage import Forecast, Run
from dataforge.workspace import Artifact, Workspace


@pytest.fixture
def config(tiny_model: Path) -> EmbedConfig:
    return EmbedConfig(model=str(tiny_model), dimensions=12)


def write_jsonl(path: Path, texts: Sequence[str]) -> Path:
    rows = [json.dumps({"id": f"{path.stem}-{i}", "text": text}) for i, text in enumerate(texts)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_every_kept_document_has_a_unit_row_in_its_place(
    workspace: Workspace, documents: Artifact, config: EmbedConfig
) -> None:
    embeddings = embed(workspace, documents, name="tiny", config=config)
    kept = Documents(documents)
    matrix = Matrix(embeddings)
    assert matrix.num_rows == kept.num_documents == embeddings.counts["in"]["documents"]
    assert kept.num_documents < kept.num_rows, "the fixture drops copies, so numbers have holes"
    assert kept.held_out_numbers().size, "held-out documents are embedded too"
    texts = [row["text"] for row in kept.get(matrix.numbers(1), ["text"])]
    embedder = embedders.get("static")(config)
    rows = embedder.open({"vectors": embeddings.input("vectors")}).encode(texts)
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mapped = matrix.parts[1].mapped()
    assert mapped.dtype == np.float16
    np.testing.assert_allclose(mapped, expected, atol=1e-3)
    for part in matrix.parts:
        lengths = np.linalg.norm(part.mapped().astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths, 1, atol=2e-3)
    assert embeddings.counts["in"]["bytes"] == documents.counts["out"]["bytes"]
    assert embeddings.counts["dimensions"] == 12
    assert not embeddings.verify()


def test_rows_are_taken_and_streamed_across_parts(
    workspace: Workspace, documents: Artifact, config: EmbedConfig
) -> None:
    matrix = Matrix(embed(workspace, documents, name="tiny", config=config))
    whole = np.concatenate([part.mapped() for part in matrix.parts])
    rows = np.sort(np.random.default_rng(0).choice(matrix.num_rows, 70, replace=False))
    assert np.array_equal(matrix.take(rows), whole[rows])
    assert matrix.take(np.array([], dtype=np.int64)).shape == (0, 12)
    streamed = [block for part in matrix.parts for _, block in part.blocks(block_rows=17)]
    assert all(block.dtype == np.float32 for block in streamed)
    assert np.array_equal(np.concatenate(streamed), whole.astype(np.float32))
    matrix.parts[0].path.write_bytes(b"")
    np.save(matrix.parts[0].path, whole)
    with pytest.raises(CorruptData, match="is due"):
        matrix.take(rows)


def test_killed_after_any_part_it_goes_on_to_the_same_content_and_so_does_a_pool(
    tmp_path: Path, corpus: Path, config: EmbedConfig
) -> None:
    """The token vectors are made beforehand: kills hit the documents."""
    contents = {}
    for way in ("undisturbed", "killed", "pool"):
        workspace = Workspace(tmp_path / way)
        documents = ingest(workspace, [corpus], name="tiny")
        vectors = embedders.get("static")(config).inputs(workspace, Run())["vectors"]
        work = functools.partial(embed, name="tiny", config=config)
        if way == "killed":
            assert run_and_kill(work, (workspace, documents), at=2, after=True)
            assert run_and_kill(work, (workspace, documents), at=1, after=False)
            assert [told["kind"] for told in workspace.unfinished()] == ["embeddings"]
        run = Run(runner=ProcessPool(2)) if way == "pool" else Run()
        embeddings = embed(workspace, documents, name="tiny", config=config, run=run)
        contents[way] = (embeddings.content, vectors.content)
        assert not embeddings.verify()
    assert len(set(contents.values())) == 1


def test_appended_documents_cost_their_own_parts_only(
    workspace: Workspace, corpus: Path, tmp_path: Path, config: EmbedConfig
) -> None:
    first = ingest(workspace, [corpus], name="tiny")
    embed(workspace, first, name="tiny", config=config)
    more = append(workspace, first, [write_jsonl(tmp_path / "more.jsonl", ["the red moon", "an iron dog"])])
    grown = embed(workspace, more, name="tiny", config=config)
    told = json.loads((grown.path / "run.json").read_text())
    assert (told["reused"], told["made"]) == (2, 1)
    assert Matrix(grown).num_rows == 200


def test_blank_documents_have_one_place_and_are_counted(
    workspace: Workspace, tmp_path: Path, config: EmbedConfig
) -> None:
    texts = ["\n\n", "red dog", "\u200b \t", "\x00"]
    documents = ingest(workspace, [write_jsonl(tmp_path / "odd.jsonl", texts)], name="odd")
    embeddings = embed(workspace, documents, name="odd", config=config)
    rows = Matrix(embeddings).take(np.arange(4)).astype(np.float32)
    assert embeddings.counts["blank"] == 3
    last = np.eye(12, dtype=np.float32)[-1]
    assert np.array_equal(rows[[0, 2, 3]], np.stack([last] * 3))
    assert not np.array_equal(rows[1], last)


def test_a_part_without_a_kept_document_is_an_empty_matrix(
    workspace: Workspace, tmp_path: Path, config: EmbedConfig
) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", ["red dog", "blue cat"])
    write_jsonl(folder / "b.jsonl", ["blue cat", "red dog"])
    documents = dedup(workspace, ingest(workspace, [folder], name="x"), name="x")
    matrix = Matrix(embed(workspace, documents, name="x", config=config))
    assert [part.rows for part in matrix.parts] == [2, 0]
    assert matrix.parts[1].mapped().shape == (0, 12)
    assert matrix.take(np.array([0, 1])).shape == (2, 12)
    assert list(matrix.parts[1].blocks()) == []


def test_another_setting_is_another_artifact_but_a_thread_count_is_not(
    workspace: Workspace, documents: Artifact, config: EmbedConfig, tiny_model: Path
) -> None:
    first = embed(workspace, documents, name="tiny", config=config)
    assert embed(workspace, documents, name="tiny", config=config).id == first.id
    threads = EmbedConfig(model=str(tiny_model), dimensions=12, num_threads=2)
    assert embed(workspace, documents, name="tiny", config=threads).id == first.id
    fewer = EmbedConfig(model=str(tiny_model), dimensions=12, max_tokens=5)
    assert embed(workspace, documents, name="tiny", config=fewer).id != first.id
    narrow = EmbedConfig(model=str(tiny_model), dimensions=8)
    assert embed(workspace, documents, name="tiny", config=narrow).counts["dimensions"] == 8


def test_a_model_counts_by_its_files_not_by_where_it_lies(
    workspace: Workspace, documents: Artifact, config: EmbedConfig, tiny_model: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(tiny_model, tmp_path / "elsewhere"))
    first = embed(workspace, documents, name="tiny", config=config)
    there = EmbedConfig(model=str(moved), dimensions=12)
    assert embed(workspace, documents, name="tiny", config=there).id == first.id
    assert len(workspace.artifacts("static-vectors")) == 1
    (moved / "note.json").write_text("{}")
    again = embed(workspace, documents, name="tiny", config=there)
    assert len(workspace.artifacts("static-vectors")) == 2, "another model"
    assert again.id == first.id, "that gave the same vectors"
    there = EmbedConfig(embedder="sentence-transformers", model=str(moved), max_tokens=16)
    second = embed(workspace, documents, name="tiny", config=there)
    (moved / "note.json").write_text("[]")
    assert embed(workspace, documents, name="tiny", config=there).id != second.id


def test_a_dry_run_makes_nothing_and_knows_the_documents(
    workspace: Workspace, documents: Artifact, config: EmbedConfig
) -> None:
    told = embed(workspace, documents, name="tiny", config=config, run=Run(dry_run=True))
    assert isinstance(told, Forecast)
    assert told.documents == documents.counts["out"]["documents"]
    assert not workspace.artifacts("static-vectors")
    assert not workspace.artifacts("embeddings")


def test_a_damaged_part_is_written_again(workspace: Workspace, documents: Artifact, config: EmbedConfig) -> None:
    first = embed(workspace, documents, name="tiny", config=config)
    data = bytearray(first.file("part-00001.npy").read_bytes())
    data[-1] ^= 1
    first.file("part-00001.npy").write_bytes(data)
    assert workspace.verify(first)
    again = embed(workspace, documents, name="tiny", config=config, run=Run(remake=("part-00001.npy",)))
    assert again.content == first.content
    assert not workspace.verify(again)


def test_what_cannot_be_embedded_is_said(workspace: Workspace, documents: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UnknownName) as unknown:
        embed(workspace, documents, name="tiny", config=EmbedConfig(embedder="statik"))
    assert "did you mean 'static'" in str(unknown.value)
    with pytest.raises(ConfigError) as missing:
        embed(workspace, documents, name="tiny", config=EmbedConfig(model=str(tmp_path / "nowhere")))
    assert missing.value.where is not None
    assert missing.value.hint is not None
    assert not workspace.artifacts("embeddings")


@dataclass(frozen=True)
class Broken:
    """An embedder that gives rows which are not finite."""

    settings: Any

    def inputs(self, workspace: Workspace, run: Run) -> dict[str, Any]:
        return {}

    def environment(self) -> dict[str, Any]:
        return {"device": "test"}

    def open(self, inputs: Any) -> Broken:
        return self

    dimensions = 4
    max_chars = 100
    window_documents = 8

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.full((len(texts), 4), np.nan, dtype=np.float32)


def test_vectors_that_are_not_finite_stop_the_stage(
    workspace: Workspace, documents: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(embedders._factories, "broken", Broken)
    with pytest.raises(WorkspaceError, match="8 of 8 vectors are not finite"):
        embed(workspace, documents, name="tiny", config=EmbedConfig(embedder="broken"))
    assert not workspace.artifacts("embeddings")
