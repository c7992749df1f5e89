"""Step 7: documents become token shards, one for each part of documents, in document order.

Held-out documents are tokenized too (evaluation reads them); whether a document may be trained on is the plan's affair.
A document without tokens keeps its place: it is its end-of-text token, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataforge.corpus.document import DocumentPart, Documents
from dataforge.errors import TokenizerError
from dataforge.make import make
from dataforge.shards.format import INDEX_NAME
from dataforge.shards.writer import ShardWriter, write_index
from dataforge.stage import Inputs, Out, Part, PartOut, Run, part_key
from dataforge.workspace import Artifact, Counts, Workspace

_TEXT_BYTES_AT_ONCE = 8 << 20


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """What is put around documents. Every field is part of the id."""

    bos: bool = True
    """Put the tokenizer's beginning-of-text id before every document, if it has one."""
    eos: bool = True
    """Put its end-of-text id behind every document, if it has one."""


@dataclass(frozen=True)
class Tokenize:
    """The stage: one shard for each part of documents, then the index over them."""

    config: TokenizeConfig
    kind = "shards"
    step = "tokenize"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        tokenizer = inputs["tokenizer"].content
        parts = []
        for part in Documents(inputs["documents"]).parts:
            key = part_key(self, part.content, part.first_number, tokenizer)
            parts.append(Part(f"{part.stem}.tok", key, {"documents": part}))
        return parts

    def open_worker(self, inputs: Inputs) -> Any:
        from dataforge.tokenizers import Tokenizer

        return Tokenizer.load(inputs["tokenizer"].path)

    def run_part(self, worker: Any, part: Part, out: PartOut) -> Counts:
        documents: DocumentPart = part.payload["documents"]
        with ShardWriter(
            out.path,
            vocab_size=worker.vocab_size,
            fingerprint=_fingerprint(worker),
            bos_id=worker.bos_id if self.config.bos else None,
            eos_id=worker.eos_id if self.config.eos else None,
        ) as writer:
            text_bytes = 0
            for numbers, texts, sizes in _texts(documents):
                token_ids, offsets = worker.encode_batch(texts)
                writer.add_batch(numbers, token_ids, offsets, sizes)
                text_bytes += int(sizes.sum())
        told = {"documents": writer.num_documents, "bytes": text_bytes}
        return Counts(taken=told, made={**told, "tokens": writer.num_tokens})

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        if out.has(INDEX_NAME):
            out.keep(INDEX_NAME)
        else:
            with out.write(INDEX_NAME) as path:
                write_index(path, [out.folder / part["path"] for part in parts])
        return Counts()


def tokenize(
    workspace: Workspace,
    documents: Artifact,
    tokenizer: Artifact,
    *,
    name: str,
    config: TokenizeConfig | None = None,
    run: Run | None = None,
) -> Artifact:
    """Token shards of all kept documents, held-out ones included.

    Args:
        workspace: where the artifact goes.
        documents: a documents artifact.
        tokenizer: a tokenizers artifact.
        name: the artifact's name.
        config: what is put around documents.
        run: where to run.
    """
    inputs = {"documents": documents, "tokenizer": tokenizer}
    return make(workspace, Tokenize(config or TokenizeConfig()), inputs, name=name, run=run)


def _texts(part: DocumentPart) -> Iterator[tuple[np.ndarray, pa.Array, np.ndarray]]:
    """Numbers, texts and their sizes in bytes, in pieces of bounded size (or of one document, if that is larger)."""
    for numbers, batch in part.batches(("text",), batch_rows=1024):
        texts = batch.column(0)
        sizes = pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
        piece = (np.cumsum(sizes) - sizes) // _TEXT_BYTES_AT_ONCE
        borders = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), numbers.size]
        for low, high in pairwise(borders):
            yield numbers[low:high], texts.slice(low, high - low), sizes[low:high]


def _fingerprint(tokenizer: Any) -> bytes:
    """The tokenizer's fingerprint, 32 bytes (SHA-256)."""
    told = tokenizer.fingerprint
    raw = bytes.fromhex(told) if isinstance(told, str) else bytes(told)
    if len(raw) != 32:
        raise TokenizerError(f"a tokenizer fingerprint has 32 bytes, this one {len(raw)}")
    return raw
