"""Where every token of a training row comes from: document, source file and position, cluster, draw, and why."""

from __future__ import annotations

from typing import Any

from dataforge.corpus import Documents
from dataforge.rows import Rows
from dataforge.workspace import Artifact


def trace_row(artifact: Artifact, row: int, rows: Rows | None = None) -> dict[str, Any]:
    """What one training row is made of, as plain values ready for JSON.

    Args:
        artifact: a rows artifact.
        row: the row's number.
        rows: the same artifact, where the caller has it open.
    Returns:
        `row`, `num_tokens` (L+1, the last label included), `plan` (its reference), and `segments` in the order of the
        tokens, whose lengths sum to `num_tokens`. Each has `row_offset` and `length` in the row; `document` (number),
        `offset` (its token that the segment begins with), `id`, `source`, `file` and `position` (in that file, from 1);
        `cluster`, `draw` (position in the plan), `epoch` (pass over the cluster, from 0) and `reason` (the plan says).
    Raises:
        PastTheEnd: there is no such row.
    """
    opened = rows or Rows(artifact)
    traces = opened.trace(row)
    documents = Documents(opened.artifact.input("shards").input("documents"))
    columns = ["id", "source", "file", "position"]
    told = documents.get([trace.document for trace in traces], columns)
    segments, at = [], 0
    for trace, document in zip(traces, told, strict=True):
        segments.append(
            {
                "row_offset": at,
                "length": trace.length,
                "document": trace.document,
                "offset": trace.offset,
                **{name: document[name] for name in columns},
                "cluster": trace.cluster,
                "draw": trace.position,
                "epoch": trace.epoch,
                "reason": trace.reason,
            }
        )
        at += trace.length
    return {"row": row, "num_tokens": at, "plan": opened.artifact.input("plan").ref, "segments": segments}
