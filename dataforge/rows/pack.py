"""Step 8: a plan's draws become rows of fixed length. No token is copied: the artifact says where each draw ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataforge.errors import ConfigError, NothingToDo
from dataforge.make import make
from dataforge.registry import unknown
from dataforge.rows.packing import PACKINGS, tokens_in_rows
from dataforge.rows.row_index import DRAWS_PER_PART, INDEX_NAME, write_ends, write_index
from dataforge.shards import Shards
from dataforge.stage import Inputs, Out, Part, PartOut, Run
from dataforge.workspace import Artifact, Counts, Workspace
from dataforge.workspace.content import digest_of

MAX_ROW_LENGTH = 1 << 20
_DRAWS_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How draws become rows. Every field is part of the id."""

    row_length: int = 2048
    """Tokens a row trains on; it holds one more as the last label."""
    packing: str = "concat"
    """`concat`: documents one behind the other, nothing padded; only the tail that fills no row is dropped."""

    def __post_init__(self) -> None:
        if not 1 <= self.row_length <= MAX_ROW_LENGTH:
            raise ConfigError(f"row_length must be between 1 and {MAX_ROW_LENGTH:,}, got {self.row_length}")
        if self.packing not in PACKINGS:
            raise unknown("packing", self.packing, PACKINGS)


@dataclass(frozen=True)
class Pack:
    """The stage: one part for each stretch of 2^20 draws, the same whatever the row length."""

    config: PackConfig
    kind = "rows"
    step = "pack"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        made_of = [inputs[role].content for role in ("plan", "shards")]
        num_draws = _plan(inputs).num_draws
        parts = []
        for index, first in enumerate(range(0, num_draws, DRAWS_PER_PART)):
            stretch = {"first_draw": first, "num_draws": min(DRAWS_PER_PART, num_draws - first)}
            # Ends do not depend on the row length: rows of another length find these parts made.
            key = digest_of([self.kind, self.version, self.config.packing, made_of, stretch])
            parts.append(Part(f"part-{index:05d}.rows", key, stretch))
        return parts

    def open_worker(self, inputs: Inputs) -> tuple[Any, Shards]:
        return _plan(inputs), Shards(inputs["shards"])

    def run_part(self, worker: tuple[Any, Shards], part: Part, out: PartOut) -> Counts:
        plan, shards = worker
        first, num_draws = part.payload["first_draw"], part.payload["num_draws"]
        fields = write_ends(out.path, first, _lengths(plan, shards, first, num_draws))
        return Counts(taken={"tokens": fields.num_tokens}, extra={"draws": num_draws})

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        taken = sum(part["counts"]["in"]["tokens"] for part in parts)
        length = self.config.row_length
        if taken <= length:
            raise NothingToDo(
                f"the plan's draws hold {taken:,} tokens, one row needs {length + 1:,}",
                where=inputs["plan"].ref,
                hint="lower `row_length` or plan more draws",
            )
        if out.has(INDEX_NAME):
            out.keep(INDEX_NAME)
        else:
            with out.write(INDEX_NAME) as path:
                write_index(
                    path,
                    [out.folder / part["path"] for part in parts],
                    row_length=length,
                    packing=self.config.packing,
                )
        rows = (taken - 1) // length
        kept = tokens_in_rows(rows, length)
        counts = Counts(made={"tokens": kept}, extra={"rows": rows, "row_length": length})
        counts.drop("tail", tokens=taken - kept)
        return counts


def pack(
    workspace: Workspace,
    plan: Artifact,
    shards: Artifact,
    *,
    name: str,
    config: PackConfig | None = None,
    run: Run | None = None,
) -> Artifact:
    """Rows made from a plan's draws and their tokens.

    Args:
        workspace: where the artifact goes.
        plan: a plans artifact.
        shards: a shards artifact that holds every document the plan can draw.
        name: the artifact's name.
        config: row length and packing.
        run: where to run.
    Raises:
        InputError: the plan draws a document that is not in the shards.
        NothingToDo: the draws do not fill one row.
    """
    inputs = {"plan": plan, "shards": shards}
    return make(workspace, Pack(config or PackConfig()), inputs, name=name, run=run)


def _plan(inputs: Inputs) -> Any:
    from dataforge.plans import SamplingPlan

    return SamplingPlan.open(inputs["plan"])


def _lengths(plan: Any, shards: Shards, first_draw: int, num_draws: int) -> Iterator[np.ndarray]:
    """Tokens of each draw, in pieces of bounded size."""
    for first in range(first_draw, first_draw + num_draws, _DRAWS_AT_ONCE):
        position = np.arange(first, min(first + _DRAWS_AT_ONCE, first_draw + num_draws), dtype=np.int64)
        cluster, inside, _ = plan.at(position)
        yield shards.lengths(plan.document_numbers(cluster, inside))
