"""Exact deduplication: which copy stays, what the ledger says, and that memory does not grow with the corpus."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.corpus import Documents, IngestConfig, append, ingest
from dataforge.corpus.ingest import is_held_out
from dataforge.corpus.sort_by_hash import sorted_buckets
from dataforge.dedup import dedup
from dataforge.dedup.exact import normalized
from dataforge.workspace import Workspace


def write(folder: Path, name: str, rows: list[tuple[str, str]]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"id": i, "text": t}, ensure_ascii=False) + "\n" for i, t in rows), "utf-8")
    return path


def brute_force(rows: list[tuple[str, str]], share: float) -> dict[str, str]:
    """Dropped id -> kept id, by the words of `dedup`."""
    groups = defaultdict(list)
    for place, (document_id, text) in enumerate(rows):
        groups[normalized(text, ["nfc", "whitespace"])].append(
            (not is_held_out(document_id, share, "dataforge"), place)
        )
    dropped = {}
    for group in groups.values():
        kept = min(group)
        dropped |= {rows[place][0]: rows[kept[1]][0] for training, place in group if (training, place) != kept}
    return dropped


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(
        st.sampled_from(["a", "a ", " a", "b", "é", "e\u0301", "c c", "c\u2028c", "d"]), min_size=1, max_size=30
    )
)
def test_what_is_dropped_is_what_brute_force_drops(tmp_path_factory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("dedup")
    rows = [(f"d{index}", text) for index, text in enumerate(texts)]
    half = len(rows) // 2
    files = [write(folder, "a.jsonl", rows[:half]), write(folder, "b.jsonl", rows[half:])]
    workspace = Workspace(folder / "workspace")
    documents = ingest(workspace, files, name="x", config=IngestConfig(holdout=0.3))
    kept = dedup(workspace, documents, name="x")
    ledger = [row for path in kept.ledgers() for row in pq.read_table(path).to_pylist()]
    assert {row["id"]: row["kept"] for row in ledger} == brute_force(rows, 0.3)
    assert all(row["rule"] == "exact-duplicate" and row["stage"] == "dedup" for row in ledger)
    left = [row["id"] for part in Documents(kept).parts for _, b in part.batches(["id"]) for row in b.to_pylist()]
    assert left == [document_id for document_id, _ in rows if document_id not in brute_force(rows, 0.3)]


def test_a_copy_of_a_held_out_document_is_not_trained_on(workspace: Workspace, tmp_path: Path) -> None:
    held = next(i for i in range(1000) if is_held_out(f"x{i}", 0.05, "dataforge"))
    free = [i for i in range(1000) if not is_held_out(f"x{i}", 0.05, "dataforge")]
    path = write(tmp_path, "a.jsonl", [(f"x{free[0]}", "same"), (f"x{held}", "same"), (f"x{free[1]}", "other")])
    documents = ingest(workspace, [path], name="x", config=IngestConfig(holdout=0.05))
    kept = Documents(dedup(workspace, documents, name="x"))
    assert kept.training_numbers().tolist() == [2]
    assert kept.held_out_numbers().tolist() == [1]


def test_the_canary_is_found_across_files_and_after_an_append(
    workspace: Workspace, corpus: Path, tmp_path: Path
) -> None:
    first = ingest(workspace, [corpus], name="web")
    text = Documents(first).get([42], ["text"])[0]["text"]
    more = write(tmp_path, "more.jsonl", [("canary", f"  {text}\n\n"), ("new", "never seen before")])
    kept = dedup(workspace, append(workspace, first, [more]), name="web")
    ledger = {row["id"]: row["kept"] for path in kept.ledgers() for row in pq.read_table(path).to_pylist()}
    assert ledger["canary"] == Documents(first).get([42], ["id"])[0]["id"]
    assert "new" not in ledger


def test_deduplicating_twice_drops_nothing_more(workspace: Workspace, documents) -> None:
    again = dedup(workspace, documents, name="again")
    assert again.counts["out"] == documents.counts["out"]
    assert "dropped" not in again.counts
    assert [p.numbers.tolist() for p in Documents(again).parts] == [
        p.numbers.tolist() for p in Documents(documents).parts
    ]


@given(
    hashes=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=60),
    cuts=st.integers(1, 4),
    limit=st.integers(1, 10),
)
def test_buckets_on_disk_hold_the_same_rows_as_one_sort(hashes: list[int], cuts: int, limit: int) -> None:
    rows = np.empty(len(hashes), dtype=[("hash", "<u8"), ("row", "<i8")])
    rows["hash"], rows["row"] = np.array(hashes, dtype=np.uint64), np.arange(len(hashes))
    parts = np.array_split(rows, cuts)
    buckets = list(sorted_buckets(parts.__getitem__, cuts, len(rows), rows_in_memory=limit))
    together = np.concatenate(buckets) if buckets else rows
    assert np.array_equal(np.sort(together, order=["hash", "row"]), np.sort(rows, order=["hash", "row"]))
    seen = [set(bucket["hash"].tolist()) for bucket in buckets]
    assert sum(map(len, seen)) == len(set(hashes))
    assert all(np.array_equal(bucket, np.sort(bucket, order=["hash", "row"])) for bucket in buckets)
