"""Same text: a 128-bit hash of each document's normalised text, part by part."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from dataforge.corpus import Documents
from dataforge.errors import ConfigError
from dataforge.stage import Inputs, Out, Part, PartOut, part_key
from dataforge.workspace import Counts

_SPACES = re.compile(r"\s+")
NORMALIZERS = ("nfc", "whitespace", "casefold")

SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("high", pa.uint64()),
        ("low", pa.uint64()),
        ("bytes", pa.int64()),
        ("held_out", pa.bool_()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class TextHashConfig:
    """What two texts may differ in and still be the same."""

    normalize: tuple[str, ...] = ("nfc", "whitespace")
    """Any of `nfc` (Unicode normal form C), `whitespace` (runs of white space count as one space, ends are trimmed) and
    `casefold`, applied in that order; () compares bytes."""

    def __post_init__(self) -> None:
        for name in self.normalize:
            if name not in NORMALIZERS:
                raise ConfigError(f"no normalizer is called {name!r}", hint=f"use any of {', '.join(NORMALIZERS)}")


def normalized(text: str, normalizers: Sequence[str]) -> str:
    """The text as it is compared.

    >>> normalized("  a \\n b ", ["whitespace"])
    'a b'
    """
    if "nfc" in normalizers:
        text = unicodedata.normalize("NFC", text)
    if "whitespace" in normalizers:
        text = _SPACES.sub(" ", text).strip()
    return text.casefold() if "casefold" in normalizers else text


@dataclass(frozen=True)
class HashTexts:
    """The stage: kind `text-hashes`, one part for each documents part, kept documents in order.

    XXH3 with 128 bits: among 10^9 texts the chance that any two different ones meet is below 10^-20.
    """

    config: TextHashConfig
    kind = "text-hashes"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        parts = Documents(inputs["documents"]).parts
        return [Part(f"{part.stem}.parquet", part_key(self, part.content), {"part": part}) for part in parts]

    def open_worker(self, inputs: Inputs) -> None:
        return None

    def run_part(self, worker: None, part: Part, out: PartOut) -> Counts:
        documents = size = 0
        with pq.ParquetWriter(out.path, SCHEMA, compression="zstd") as writer:
            for numbers, batch in part.payload["part"].batches(["text", "held_out"]):
                texts = batch.column("text").to_pylist()
                digests = b"".join(
                    xxhash.xxh3_128_digest(normalized(text, self.config.normalize).encode()) for text in texts
                )
                halves = np.frombuffer(digests, dtype=">u8").reshape(-1, 2).astype(np.uint64)
                sizes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
                columns = [numbers, halves[:, 0], halves[:, 1], sizes, batch.column("held_out")]
                writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
                documents, size = documents + len(texts), size + int(sizes.sum())
        told = {"documents": documents, "bytes": size}
        return Counts(taken=told, made=dict(told))

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        return Counts()
