"""Rows of a rows artifact, at random or many at once, with where every token came from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataforge.errors import ArtifactIncomplete, ArtifactNotFound, ConfigError, CorruptData, PastTheEnd
from dataforge.rows.row_index import RowIndex
from dataforge.shards import Shards
from dataforge.workspace.artifact import Artifact


class Spans(NamedTuple):
    """The pieces of some rows, resolved to places in shards. All int64, one entry a piece, in order."""

    row: np.ndarray
    """Index into the rows that were asked for."""
    document: np.ndarray
    """Document number."""
    offset: np.ndarray
    """First token of the piece within its document."""
    length: np.ndarray
    position: np.ndarray
    """Plan position of the draw."""
    part: np.ndarray
    start: np.ndarray
    """First token of the piece within its shard."""


@dataclass(frozen=True)
class Trace:
    """Where one segment of a row came from."""

    document: int
    """Document number."""
    offset: int
    """First token of the segment within its document."""
    length: int
    position: int
    """Plan position of the draw."""
    cluster: int
    epoch: int
    """How often the plan had drawn the document before."""
    reason: Any
    """Why the plan drew it here, in the plan's own words."""


class Rows:
    """A rows artifact, with the plan and the shards that it was packed from.

    Args:
        artifact_or_folder: a rows Artifact, or the folder of one; plan and shards are found in the same workspace.
        plan, shards: in their place, where the caller has them open.
    Raises:
        FormatError, ChecksumMismatch: something is not what was written.
        ArtifactNotFound, ArtifactIncomplete: there are no whole rows, or plan or shards are gone.
    """

    def __init__(self, artifact_or_folder: Any, *, plan: Any = None, shards: Shards | None = None) -> None:
        is_artifact = isinstance(artifact_or_folder, Artifact)
        self.artifact: Artifact = artifact_or_folder if is_artifact else _artifact_at(Path(artifact_or_folder))
        if self.artifact.kind != "rows":
            raise ConfigError(f"{self.artifact.ref} is no rows artifact", hint="give rows, as `pack` makes them")
        self._index = RowIndex(self.artifact.path)
        if plan is not None:
            self.plan = plan
        if shards is not None:
            self.shards = shards

    @cached_property
    def plan(self) -> Any:
        """The sampling plan that the rows follow."""
        from dataforge.plans import SamplingPlan

        return SamplingPlan.open(self.artifact.input("plan"))

    @cached_property
    def shards(self) -> Shards:
        """The tokens that the rows are cut from."""
        return Shards(self.artifact.input("shards"))

    @property
    def digest(self) -> str:
        """Content digest of the rows, 64 hex: equal digests mean equal rows."""
        return self.artifact.content.removeprefix("sha256:")

    @property
    def num_rows(self) -> int:
        return self._index.num_rows

    @property
    def row_length(self) -> int:
        """L: a row holds L+1 tokens, its last token is the first of the next row."""
        return self._index.row_length

    @property
    def num_draws(self) -> int:
        return self._index.num_draws

    @property
    def dtype(self) -> np.dtype:
        """The type that token ids are stored in, uint16 or uint32."""
        return self.shards.dtype

    def spans(self, rows: Any) -> Spans:
        """The pieces of some rows and where they lie.

        Args:
            rows: row numbers, int64, rising, repeats allowed.
        Raises:
            PastTheEnd: a row number is not below `num_rows`.
        """
        wanted = np.atleast_1d(np.asarray(rows, np.int64))
        if wanted.size and not 0 <= int(wanted.min()) <= int(wanted.max()) < self.num_rows:
            wrong = int(wanted.max()) if int(wanted.max()) >= self.num_rows else int(wanted.min())
            raise PastTheEnd(
                f"there is no row {wrong:,}", where=self.artifact.ref, hint=f"rows run from 0 to {self.num_rows - 1:,}"
            )
        pieces, draws = self._index.pieces(wanted)
        fresh = np.ones(pieces.entry.size, bool)  # neighbours share a draw: resolve it once
        fresh[1:] = pieces.entry[1:] != pieces.entry[:-1]
        entry = pieces.entry[fresh]
        which = np.cumsum(fresh) - 1
        position = draws.position[entry]
        if not position.size:
            return Spans(*pieces, position, position, position)
        cluster, inside, _ = self.plan.at(position)
        document = self.plan.document_numbers(cluster, inside)
        part, start, length = self.shards.locate(document)
        if (length != draws.ends[entry] - draws.starts[entry]).any():
            raise CorruptData(
                "documents have other lengths in the shards than when the rows were packed",
                where=self.artifact.ref,
                hint="`dataforge verify` on the rows and on their shards says which of them changed",
            )
        return Spans(
            pieces.row,
            document[which],
            pieces.offset,
            pieces.length,
            position[which],
            part[which],
            start[which] + pieces.offset,
        )

    def segments(self, rows: Any) -> np.ndarray:
        """What some rows are made of, int64 [n, 4]: row, document number, offset in the document, length.

        The lengths of a row sum to L+1; segments come in the order of their tokens.
        """
        return self.segments_of(rows, self.spans(rows))

    def segments_of(self, rows: Any, spans: Spans) -> np.ndarray:
        """The segment table of spans that `spans(rows)` gave."""
        wanted = np.atleast_1d(np.asarray(rows, np.int64))
        table = np.empty((spans.row.size, 4), np.int64)
        table[:, 0] = wanted[spans.row]
        table[:, 1] = spans.document
        table[:, 2] = spans.offset
        table[:, 3] = spans.length
        return table

    def gather(self, spans: Spans, out: np.ndarray) -> None:
        """Copy the tokens of spans to a flat array that they fill exactly; see `Shards.gather`."""
        self.shards.gather(spans.part, spans.start, spans.length, out)

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """One row: its L+1 token ids in their stored type, and its segments (int64 [n, 4])."""
        spans = self.spans(row)
        token_ids = np.empty(self.row_length + 1, self.dtype)
        self.gather(spans, token_ids)
        return token_ids, self.segments_of(row, spans)

    def trace(self, row: int) -> list[Trace]:
        """Every segment of a row with its document, plan position, cluster, epoch and the reason of the draw."""
        spans = self.spans(row)
        cluster, _, epoch = self.plan.at(spans.position)
        told = np.stack([*spans[1:5], cluster, epoch], axis=1).tolist()
        return [
            Trace(document, offset, length, position, of_cluster, in_epoch, self.plan.reason(position))
            for document, offset, length, position, of_cluster, in_epoch in told
        ]

    def check_all(self) -> None:
        """Compare every byte of row index and shards with its checksum."""
        self._index.check_all()
        self.shards.check_all()

    def close(self) -> None:
        """Let go of the maps."""
        self._index.close()
        self.shards.close()


def _artifact_at(folder: Path) -> Artifact:
    if not folder.is_dir():
        raise ArtifactNotFound("there is no such folder", where=str(folder), hint="`dataforge list rows` shows them")
    if not (folder / "manifest.json").is_file():
        raise ArtifactIncomplete(
            "the folder has no manifest.json, so it is no whole artifact",
            where=str(folder),
            hint="give workspace/rows/name@id; if that was begun and not finished, `dataforge pack` goes on with it",
        )
    return Artifact.at(folder)
