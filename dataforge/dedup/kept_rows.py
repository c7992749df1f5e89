"""The documents artifact that deduplication makes: the parent's parts and, for each, a bitmap of kept rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dataforge.corpus.document import KEPT_SUFFIX, DocumentPart, Documents, write_kept
from dataforge.errors import NothingToDo
from dataforge.stage import Inputs, Out, Part, PartOut, part_key
from dataforge.workspace import Artifact, Counts


@dataclass(frozen=True, kw_only=True)
class DropConfig:
    """How the drops are called in ledgers and counts."""

    rule: str = "exact-duplicate"


@dataclass(frozen=True)
class DropDuplicates:
    """The stage: kind `documents`, one bitmap for each root part and a ledger of what it drops."""

    config: DropConfig
    kind = "documents"
    step = "dedup"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        found: Artifact = inputs["duplicates"]
        sizes: Artifact = inputs["hashes"]
        parts = []
        for part in Documents(inputs["documents"]).parts:
            table = found.part(f"{part.stem}.parquet")
            payload = {"part": part, "dropped": found.file(table["path"]), "sizes": sizes.file(f"{part.stem}.parquet")}
            parts.append(Part(part.stem + KEPT_SUFFIX, part_key(self, part.content, table["content"]), payload))
        return parts

    def open_worker(self, inputs: Inputs) -> Documents:
        return Documents(inputs["documents"])

    def run_part(self, worker: Documents, part: Part, out: PartOut) -> Counts:
        mine: DocumentPart = part.payload["part"]
        table = pq.read_table(part.payload["dropped"], use_threads=False)
        dropped, kept = table["number"].to_numpy(), table["kept"].to_numpy()
        hashed = pq.read_table(part.payload["sizes"], columns=["number", "bytes"], use_threads=False)
        numbers, sizes = hashed["number"].to_numpy(), hashed["bytes"].to_numpy()
        keep = mine.kept.copy()
        keep[dropped - mine.first_number] = False
        write_kept(out.path, keep)
        lost = sizes[np.searchsorted(numbers, dropped)]
        rows = worker.get(dropped.tolist(), ["id", "file", "position"])
        twins = worker.get(kept.tolist(), ["id"])
        for row, twin, size in zip(rows, twins, lost.tolist(), strict=True):
            out.drop(
                self.config.rule,
                id=row["id"],
                number=row["number"],
                kept=twin["id"],
                size_bytes=size,
                file=row["file"],
                position=row["position"],
            )
        counts = Counts(taken={"documents": len(numbers), "bytes": int(sizes.sum())})
        if len(dropped):
            counts.drop(self.config.rule, documents=len(dropped), bytes=int(lost.sum()))
        counts.made = {"documents": len(numbers) - len(dropped), "bytes": int(sizes.sum() - lost.sum())}
        return counts

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        if not any(part["counts"]["out"]["documents"] for part in parts):
            raise NothingToDo("no document is left", where=inputs["documents"].ref, hint="look at the parent's ledger")
        return Counts()
