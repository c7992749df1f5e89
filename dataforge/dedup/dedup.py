"""Step 2: leave out copies. Hashes part by part, one decision for the corpus, a bitmap for each part."""

from __future__ import annotations

from dataclasses import dataclass

from dataforge.dedup.duplicates import DuplicatesConfig, FindDuplicates
from dataforge.dedup.exact import HashTexts, TextHashConfig
from dataforge.dedup.kept_rows import DropConfig, DropDuplicates
from dataforge.make import make
from dataforge.stage import Run
from dataforge.workspace import Artifact, Workspace


@dataclass(frozen=True, kw_only=True)
class DedupConfig:
    """What counts as a copy."""

    normalize: tuple[str, ...] = ("nfc", "whitespace")
    """Any of `nfc` (Unicode normal form C), `whitespace` (runs of white space count as one space) and `casefold`; ()
    compares bytes."""

    def __post_init__(self) -> None:
        TextHashConfig(normalize=self.normalize)


def dedup(
    workspace: Workspace, documents: Artifact, *, name: str, config: DedupConfig | None = None, run: Run | None = None
) -> Artifact:
    """Documents without exact copies (of the normalised text).

    The first copy in document order is kept; where a held-out document is among the copies, the first held-out one is,
    so that no text is both trained on and held out. Every dropped document is in the ledger with its kept twin's id.

    Args:
        workspace: where the artifacts go: `text-hashes`, `duplicates` and the new `documents`.
        documents: what to look through, ingested or filtered.
        name: the artifacts' name.
        config: what counts as a copy.
        run: where to run.
    """
    config = config or DedupConfig()
    hashing = HashTexts(TextHashConfig(normalize=tuple(config.normalize)))
    hashes = make(workspace, hashing, {"documents": documents}, name=name, run=run)
    found = make(workspace, FindDuplicates(DuplicatesConfig()), {"hashes": hashes}, name=name, run=run)
    inputs = {"documents": documents, "hashes": hashes, "duplicates": found}
    return make(workspace, DropDuplicates(DropConfig()), inputs, name=name, run=run)
