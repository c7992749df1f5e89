"""Ingest: every row becomes a document or a counted reason; broken containers and doubled ids stop with their place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.corpus import Documents, IngestConfig, append, ingest
from dataforge.corpus.duplicate_ids import refuse_duplicate_ids
from dataforge.errors import ConfigError, DuplicateId, InputError, NothingToDo, TooManyBadRows
from dataforge.workspace import Artifact, Workspace


def rows(artifact: Artifact) -> list[dict[str, Any]]:
    return [
        row
        for part in Documents(artifact).parts
        for _, b in part.batches(["id", "text", "position"])
        for row in b.to_pylist()
    ]


def jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


TEXTS = [
    "plain",
    "line\u2028separator",
    "form\x0cfeed",
    "\ufeffmark",
    "tab\tand\nnewline",
    "漢字",
    "𝔘",
    "\x85next",
    "a\r\nb",
]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_every_container_gives_the_same_documents(workspace: Workspace, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    if ending == ".parquet":
        pq.write_table(pa.table({"text": TEXTS}), path, row_group_size=2)
    elif ending == ".jsonl.gz":
        path.write_bytes(gzip.compress(jsonl(TEXTS)))
    elif ending == ".jsonl.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(jsonl(TEXTS))
    else:
        path.write_bytes(jsonl(TEXTS))
    found = rows(ingest(workspace, [path], name="a"))
    assert [row["text"] for row in found] == TEXTS
    assert [row["position"] for row in found] == list(range(1, len(TEXTS) + 1))


def test_a_zstd_file_of_several_frames_is_read_to_its_end(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    frames = []
    for index in range(3):
        single = tmp_path / f"{index}.zst"
        with pa.CompressedOutputStream(str(single), "zstd") as file:
            file.write(jsonl([f"frame {index}"]))
        frames.append(single.read_bytes())
    path.write_bytes(b"".join(frames))
    assert [row["text"] for row in rows(ingest(workspace, [path], name="a"))] == ["frame 0", "frame 1", "frame 2"]


def test_a_folder_of_text_files_is_a_document_each(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.txt").write_text("second", "utf-8")
    (folder / "deep" / "a.md").write_text("first\n", "utf-8")
    (folder / ".hidden.txt").write_text("never", "utf-8")
    found = rows(ingest(workspace, [folder], name="notes"))
    assert [(row["id"], row["text"]) for row in found] == [("notes/b.txt", "second"), ("notes/deep/a.md", "first\n")]


def test_fields_are_mapped_and_the_rest_is_kept_as_meta(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"doc": 7, "content": "hello", "lang": "en", "score": 0.5, "tags": ["x"]}) + "\n")
    config = IngestConfig(fields={"text": "content", "id": "doc"}, source="web")
    (row,) = Documents(ingest(workspace, [path], name="a", config=config)).get([0])
    assert (row["id"], row["text"], row["lang"], row["source"]) == ("7", "hello", "en", "web")
    assert json.loads(row["meta"]) == {"score": 0.5, "tags": ["x"]}


BAD_LINES = {
    b'{"text": "unclosed': "broken-json",
    b"[1, 2]": "not-an-object",
    b'{"text": "\xff\xfe"}': "invalid-utf-8",
    b'{"other": 1}': "missing-text",
    b'{"text": 5}': "text-is-not-a-string",
    b'{"text": "\\ud800"}': "invalid-unicode",
    b'{"text": "fine", "id": "\\ud800"}': "invalid-unicode",
    b'{"text": ""}': "empty",
    b"[" * 100_000: "broken-json",
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.items(), ids=list(range(len(BAD_LINES))))
def test_a_bad_row_is_counted_by_reason_and_listed_with_its_line(
    workspace: Workspace, tmp_path: Path, line: bytes, reason: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n\n' + line + b"\n" + b'{"text": "also good"}')
    artifact = ingest(workspace, [path], name="a", config=IngestConfig(max_bad_share=0.5))
    assert artifact.counts["dropped"][reason]["documents"] == 1
    assert [row["text"] for row in rows(artifact)] == ["good", "also good"]
    (told,) = pq.read_table(artifact.ledgers()[0]).to_pylist()
    assert (told["rule"], told["file"], told["position"]) == (reason, "a.jsonl", 3)


def test_more_bad_rows_than_allowed_stop_the_stage_and_name_the_first(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n' * 97 + b"nonsense\n" * 3)
    with pytest.raises(TooManyBadRows, match="3 of 100 rows") as caught:
        ingest(workspace, [path], name="a")
    assert "a.jsonl:98 (broken-json)" in str(caught.value.where)
    assert workspace.artifacts() == []
    assert ingest(workspace, [path], name="a", config=IngestConfig(max_bad_share=0.03)).counts["bad_rows"] == 3


@pytest.mark.parametrize("ending", ["gz", "zst"])
@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_truncated_stream_is_refused(workspace: Workspace, tmp_path: Path, ending: str, keep: float) -> None:
    path = tmp_path / f"a.jsonl.{ending}"
    with pa.CompressedOutputStream(str(path), "gzip" if ending == "gz" else "zstd") as file:
        file.write(jsonl([f"{index} " * 50 for index in range(2000)]))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match="stream is broken") as caught:
        ingest(workspace, [path], name="a")
    assert caught.value.where == f"a.jsonl.{ending}"
    assert workspace.artifacts() == []


def test_a_parquet_file_that_is_none_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nothing of the kind PAR1")
    with pytest.raises(InputError, match="Parquet file is broken"):
        ingest(workspace, [path], name="a")


def test_empty_files_are_borne_but_not_an_empty_corpus(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(NothingToDo):
        ingest(workspace, [tmp_path / "empty.jsonl"], name="a")
    (tmp_path / "full.jsonl").write_bytes(jsonl(["x"]))
    assert (
        ingest(workspace, [tmp_path / "empty.jsonl", tmp_path / "full.jsonl"], name="a").counts["out"]["documents"] == 1
    )


def test_a_doubled_id_is_refused_with_both_places(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "x", "text": "1"}\n{"id": "y", "text": "2"}\n')
    (tmp_path / "b.jsonl").write_text('{"id": "z", "text": "3"}\n{"id": "x", "text": "4"}\n')
    with pytest.raises(DuplicateId) as caught:
        ingest(workspace, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], name="a")
    assert caught.value.where == "a.jsonl:1 and b.jsonl:2"
    first = ingest(workspace, [tmp_path / "a.jsonl"], name="a")
    with pytest.raises(DuplicateId):
        append(workspace, first, [tmp_path / "b.jsonl"])
    assert workspace.open("documents/a").id == first.id


def test_doubled_ids_are_found_when_ids_do_not_fit_in_memory(workspace: Workspace, corpus: Path) -> None:
    artifact = ingest(workspace, [corpus], name="a")
    paths = [part.path for part in Documents(artifact).parts]
    refuse_duplicate_ids(paths, rows_in_memory=10)
    with pytest.raises(DuplicateId):
        refuse_duplicate_ids([*paths, paths[0]], rows_in_memory=10)


def test_unknown_endings_doubled_names_and_missing_paths_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("?")
    with pytest.raises(ConfigError, match=r"a\.xyz"):
        ingest(workspace, [tmp_path / "a.xyz"], name="a")
    assert (
        ingest(workspace, [tmp_path / "a.xyz"], name="a", config=IngestConfig(format="text")).counts["out"]["documents"]
        == 1
    )
    with pytest.raises(InputError, match="no such file"):
        ingest(workspace, [tmp_path / "missing.jsonl"], name="a")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.jsonl").write_bytes(jsonl(["x"]))
    with pytest.raises(ConfigError, match="two files are called"):
        ingest(workspace, [tmp_path / "one" / "same.jsonl", tmp_path / "two" / "same.jsonl"], name="a")


def test_a_changed_file_makes_another_artifact(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(["one"]))
    first = ingest(workspace, [path], name="a")
    path.write_bytes(jsonl(["two"]))
    second = ingest(workspace, [path], name="a")
    assert first.id != second.id
    assert [row["text"] for row in rows(second)] == ["two"]


def test_held_out_documents_depend_on_their_id_alone(workspace: Workspace, corpus: Path) -> None:
    config = IngestConfig(holdout=0.1)
    both = Documents(ingest(workspace, [corpus], name="both", config=config))
    alone = Documents(ingest(workspace, [corpus / "second.jsonl"], name="second", config=config))
    held = {row["id"] for row in both.get(both.held_out_numbers(), ["id"])}
    assert 5 <= len(held) <= 40
    assert {row["id"] for row in alone.get(alone.held_out_numbers(), ["id"])} <= held
    assert set(both.training_numbers()) & set(both.held_out_numbers()) == set()


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=12))
def test_any_text_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.jsonl").write_bytes(jsonl(texts))
    artifact = ingest(Workspace(folder / "workspace"), [folder / "a.jsonl"], name="a")
    assert [row["text"] for row in rows(artifact)] == texts
    assert artifact.counts["in"]["bytes"] == sum(len(text.encode()) for text in texts)
