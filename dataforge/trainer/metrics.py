"""What a run tells, one JSON line a step, each step once however often the run was killed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataforge.moe import max_violation

METRICS = "metrics.jsonl"
"""A run's metrics; in an artifact without `TIME_FIELDS`, which are in `TIMINGS` beside the manifest."""
TIMINGS = "timings.jsonl"
TIME_FIELDS = ("seconds", "tokens_per_s")
"""What two runs of the same config may differ in."""

_ADDED = ("tokens_per_expert", "dropped", "tokens_without_expert")
"""Router metrics that add up over a step's passes; the others are averaged."""


class MetricsLog:
    """The file `metrics.jsonl` of a run.

    Opened at the step that a run goes on from: what a killed run had written after it is cut off, so the file ends as
    an undisturbed run's does, but for `TIME_FIELDS`.
    """

    def __init__(self, path: Path, *, after_step: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line, row in _lines(path) if row["step"] <= after_step]
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        self._file = path.open("a", encoding="utf-8", newline="\n")

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one step's row."""
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Make all rows durable; done before the checkpoint that vouches for them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, in order; a last line that a kill tore is left out.

    For an artifact's metrics, rows have their times again if `timings.jsonl` lies beside.
    """
    times = {row["step"]: row for _, row in _lines(path.with_name(TIMINGS))}
    return [{**row, **times.get(row["step"], {})} for _, row in _lines(path)]


def without_times(path: Path, folder: Path) -> tuple[Path, Path]:
    """Write a run's metrics into `folder` as two files, without the times and the times alone; their paths."""
    plain, timings = folder / METRICS, folder / TIMINGS
    with (
        plain.open("w", encoding="utf-8", newline="\n") as told,
        timings.open("w", encoding="utf-8", newline="\n") as timed,
    ):
        for row in read_metrics(path):
            times = {name: row.pop(name) for name in TIME_FIELDS}
            told.write(json.dumps(row, allow_nan=False) + "\n")
            timed.write(json.dumps({"step": row["step"], **times}) + "\n")
    return plain, timings


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        return
    with path.open("r", encoding="utf-8", newline="\n") as file:
        for line in file:
            row = None
            if line.endswith("\n"):
                with contextlib.suppress(ValueError):
                    row = json.loads(line)
            if not isinstance(row, dict) or "step" not in row:
                return
            yield line, row


def merge_router_metrics(passes: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Any]:
    """One step's router metrics as plain lists, layer by layer, from those of its passes.

    Counts add up; `max_violation` is that of the sum; the others are averaged by the passes' `shares` of the rows.
    """
    if not passes or not passes[0]:
        return {}
    merged: dict[str, Tensor] = {}
    for name in passes[0]:
        values = [told[name] for told in passes]
        if name in _ADDED:
            merged[name] = torch.stack(values).sum(0)
        else:
            merged[name] = torch.stack([share * value.float() for share, value in zip(shares, values)]).sum(0)
    merged["max_violation"] = torch.stack([max_violation(load_E) for load_E in merged["tokens_per_expert"]])
    return {name: value.tolist() for name, value in merged.items()}
