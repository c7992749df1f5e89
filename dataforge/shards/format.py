"""Bytes of a token shard (`part-00000.tok`) and of the index over an artifact's shards (`index.tok`).

A shard holds the tokens of one part of documents, in document order, and says where each document ends: boundaries are
written down, never guessed from an end-of-text token. The index lists the parts, so that opening an artifact of ten
thousand shards opens one file. Both are sealed files (`container.py`); docs/formats.md gives every byte.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from dataforge.errors import FormatError
from dataforge.shards.container import Kind, SealedFile

PAGE_BYTES = 1 << 20
NO_TOKEN = -1
"""In place of a beginning-of-text or end-of-text id that the tokenizer does not insert."""

SHARD = Kind("tokens", struct.Struct("<QQQqqIIqq32s"), "tokenize", paged="TOKENS")
INDEX = Kind("tokindex", struct.Struct("<QQQIIqq32s"), "tokenize")
INDEX_NAME = "index.tok"
INDEX_COLUMNS = ("first_number", "last_number", "documents", "tokens", "text_bytes", "header_crc32c")
"""Columns of the index's PARTS section, int64, one row a part."""


def dtype_of(vocab_size: int) -> np.dtype:
    """The type that token ids of a vocabulary are stored in.

    >>> dtype_of(65_536).str, dtype_of(65_537).str
    ('<u2', '<u4')
    """
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


@dataclass(frozen=True)
class ShardFields:
    """What a shard's header says, in the order of its bytes."""

    num_tokens: int
    num_documents: int
    text_bytes: int
    """UTF-8 bytes of the documents' text."""
    first_number: int
    last_number: int
    """Numbers of the first and the last document; -1 where there is none."""
    vocab_size: int
    max_token_id: int
    """The largest id in the shard; 0 where there is no token."""
    bos_id: int
    eos_id: int
    """Ids put before and after every document, or -1."""
    fingerprint: bytes
    """Of the tokenizer, 32 bytes."""

    def pack(self) -> bytes:
        return SHARD.fields.pack(*astuple(self))

    @classmethod
    def of(cls, file: SealedFile) -> ShardFields:
        """Read and check the fields of an opened shard. Raises FormatError."""
        fields = cls(*SHARD.fields.unpack(file.fields))
        item = dtype_of(fields.vocab_size).itemsize
        tokens = file.sections["TOKENS"]
        rows = [file.sections.get(name) for name in ("DOCEND", "DOCNUMBER", "DOCBYTES")]
        items = [section.item if section else None for section in rows]
        if items != ["<u8", "<i8", "<u8"] or tokens.item != f"<u{item}":
            raise file.fail(f"has sections of types {tokens.item}, {items}")
        if tokens.length != fields.num_tokens * item:
            raise file.fail(
                f"has {tokens.length:,} bytes of tokens, its header says {item} times {fields.num_tokens:,}"
            )
        if any(section is None or section.length != 8 * fields.num_documents for section in rows):
            raise file.fail(f"has document tables of another length than {fields.num_documents:,} documents")
        if fields.vocab_size == 0 or fields.max_token_id >= fields.vocab_size:
            raise file.fail(f"holds token id {fields.max_token_id}, its vocabulary has {fields.vocab_size}")
        return fields


@dataclass(frozen=True)
class IndexFields:
    """What the header of `index.tok` says, in the order of its bytes."""

    num_tokens: int
    num_documents: int
    text_bytes: int
    vocab_size: int
    num_parts: int
    bos_id: int
    eos_id: int
    fingerprint: bytes

    def pack(self) -> bytes:
        return INDEX.fields.pack(*astuple(self))


def read_index(folder: Path) -> tuple[IndexFields, int, list[str], np.ndarray]:
    """Fields, page bytes, part names and table of parts (int64, `INDEX_COLUMNS`) of a shards artifact's folder.

    Raises:
        FormatError, ChecksumMismatch: the index is not what was written.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        raise FormatError(
            f"there is no {INDEX_NAME}",
            where=str(folder),
            hint="give the folder of a whole shards artifact (it has a manifest.json)",
        )
    file = SealedFile(path, INDEX)
    fields = IndexFields(*INDEX.fields.unpack(file.fields))
    names = bytes(file.section("NAMES")).decode("ascii").split("\n")[:-1]
    table = file.section("PARTS")
    if len(names) != fields.num_parts or table.size != fields.num_parts * len(INDEX_COLUMNS) or not fields.vocab_size:
        raise file.fail(f"lists {len(names)} names for {fields.num_parts} parts")
    if any(name != Path(name).name or name in ("", ".", "..") or "\\" in name for name in names):
        raise file.fail("names a part that is not a plain file name")
    table = table.reshape(-1, len(INDEX_COLUMNS))
    held = table[table[:, 2] > 0]
    too_many = held[:, 1] - held[:, 0] + 1 < held[:, 2]
    if (table[:, 2:5] < 0).any() or too_many.any() or (held[1:, 0] <= held[:-1, 1]).any():
        raise file.fail("lists parts whose document numbers do not rise")
    totals = (fields.num_documents, fields.num_tokens, fields.text_bytes)
    if tuple(table[:, 2:5].sum(axis=0).tolist()) != totals:
        raise file.fail("lists parts that do not add up to its totals")
    return fields, file.page_bytes, names, table
