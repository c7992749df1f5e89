"""Writes token shards document by document in bounded memory, and the index over them."""

from __future__ import annotations

from array import array
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dataforge.errors import ConfigError, InputError, TokenizerError
from dataforge.shards.container import SealedFile, SealedWriter, place_of
from dataforge.shards.format import INDEX, NO_TOKEN, PAGE_BYTES, SHARD, IndexFields, ShardFields, dtype_of


class ShardWriter:
    """Writes one shard. Memory: one page of tokens and 24 bytes a document.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "part-00000.tok"
    >>> with ShardWriter(path, vocab_size=300, fingerprint=bytes(32)) as writer:
    ...     writer.add(number=4, token_ids=[7, 8, 9], text_bytes=3)
    >>> writer.num_tokens, writer.num_documents
    (3, 1)
    """

    def __init__(
        self,
        path: Path,
        *,
        vocab_size: int,
        fingerprint: bytes,
        bos_id: int | None = None,
        eos_id: int | None = None,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        if not 1 <= vocab_size < 1 << 32:
            raise ConfigError(f"a vocabulary of {vocab_size:,} ids cannot be stored", hint="1 to 4,294,967,295")
        if len(fingerprint) != 32:
            raise ConfigError(f"a tokenizer fingerprint has 32 bytes, got {len(fingerprint)}")
        self.vocab_size, self.dtype = vocab_size, dtype_of(vocab_size)
        self._path, self._fingerprint = path, fingerprint
        self._bos, self._eos = (NO_TOKEN if i is None else i for i in (bos_id, eos_id))
        for token_id in (self._bos, self._eos):
            if token_id >= vocab_size:
                raise TokenizerError(f"token id {token_id} is not in a vocabulary of {vocab_size}")
        self._ends, self._numbers, self._sizes = array("Q"), array("q"), array("Q")
        self._max_id = self.num_tokens = self._text_bytes = 0
        self._file = SealedWriter(path, SHARD, page_bytes=page_bytes, item=self.dtype.str)

    @property
    def num_documents(self) -> int:
        return len(self._ends)

    def add(self, number: int, token_ids: Any, text_bytes: int) -> None:
        """Append one document. `add_batch` is the fast way."""
        ids = np.asarray(token_ids, np.int64)
        self.add_batch(np.array([number]), ids, np.array([0, ids.size]), np.array([text_bytes]))

    def add_batch(
        self, numbers: np.ndarray, token_ids: np.ndarray, offsets: np.ndarray, text_bytes: np.ndarray
    ) -> None:
        """Append documents: document i has tokens [offsets[i], offsets[i+1]) of `token_ids`.

        The ids for beginning and end of text, where the shard has them, are put around each document here.

        Args:
            numbers: int64, rising, above those of the documents already added.
            token_ids: any integer type.
            offsets: int64, one more than documents, from 0 to `token_ids.size`.
            text_bytes: UTF-8 bytes of each document's text.
        Raises:
            InputError: numbers that do not rise, offsets that do not fit.
            TokenizerError: an id outside the vocabulary.
        """
        if numbers.size == 0:
            return
        last = self._numbers[-1] if self._numbers else -1
        if numbers[0] <= last or (np.diff(numbers) <= 0).any():
            raise InputError(f"document numbers must rise; {int(numbers[0]):,} after {last:,}", where=self._path.name)
        lengths = np.diff(offsets)
        if offsets.size != numbers.size + 1 or offsets[0] != 0 or offsets[-1] != token_ids.size or (lengths < 0).any():
            raise InputError(f"{offsets.size:,} offsets do not cut {token_ids.size:,} tokens", where=self._path.name)
        if token_ids.size:
            largest, smallest = int(token_ids.max()), int(token_ids.min())
            if largest >= self.vocab_size or smallest < 0:
                wrong = largest if largest >= self.vocab_size else smallest
                raise TokenizerError(
                    f"token id {wrong:,} is not in a vocabulary of {self.vocab_size:,}", where=self._path.name
                )
            self._max_id = max(self._max_id, largest)
        token_ids, lengths = self._with_ends(token_ids, offsets, lengths)
        self._file.append(token_ids.astype(self.dtype, copy=False))
        ends = self.num_tokens + np.cumsum(lengths)
        self.num_tokens = int(ends[-1])
        self._ends.frombytes(ends.astype(np.uint64).tobytes())
        self._numbers.frombytes(numbers.astype(np.int64).tobytes())
        self._sizes.frombytes(text_bytes.astype(np.uint64).tobytes())
        self._text_bytes += int(text_bytes.sum())

    def _with_ends(
        self, token_ids: np.ndarray, offsets: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        before, after = int(self._bos >= 0), int(self._eos >= 0)
        if not before + after:
            return token_ids, lengths
        out = np.empty(token_ids.size + lengths.size * (before + after), self.dtype)
        document = np.arange(lengths.size, dtype=np.int64)
        ends = np.ones(out.size, bool)  # True where a document's own tokens go
        for present, token_id, at in (
            (before, self._bos, offsets[:-1] + document * (before + after)),
            (after, self._eos, offsets[1:] + document * (before + after) + before),
        ):
            if present:
                out[at] = token_id
                ends[at] = False
                self._max_id = max(self._max_id, token_id)
        out[ends] = token_ids
        return out, lengths + before + after

    def finish(self) -> ShardFields:
        """Write the document tables, header and trailer. Returns what the header says."""
        first, last = (self._numbers[0], self._numbers[-1]) if self._numbers else (-1, -1)
        fields = ShardFields(
            self.num_tokens,
            self.num_documents,
            self._text_bytes,
            first,
            last,
            self.vocab_size,
            self._max_id,
            self._bos,
            self._eos,
            self._fingerprint,
        )
        tables = [("DOCEND", "<u8", self._ends), ("DOCNUMBER", "<i8", self._numbers), ("DOCBYTES", "<u8", self._sizes)]
        self._file.finish(fields.pack(), [(name, item, np.frombuffer(told, item)) for name, item, told in tables])
        return fields

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        self._file.close()


def write_index(path: Path, parts: list[Path]) -> IndexFields:
    """Write the index over a shards artifact's parts, in document order. Reads each part's header only.

    Raises:
        TokenizerError: two parts come from different tokenizers.
        InputError: document numbers do not rise from part to part.
    """
    rows, first, names = [], None, []
    last = -1
    for part in parts:
        file = SealedFile(part, SHARD)
        fields = ShardFields.of(file)
        first = first or fields
        tokenizer = (fields.fingerprint, fields.vocab_size, fields.bos_id, fields.eos_id)
        if tokenizer != (first.fingerprint, first.vocab_size, first.bos_id, first.eos_id):
            raise TokenizerError(
                f"{part.name} was made by tokenizer {fields.fingerprint.hex()[:12]} with {fields.vocab_size:,} ids, "
                f"{parts[0].name} by {first.fingerprint.hex()[:12]} with {first.vocab_size:,}",
                where=place_of(part),
                hint="the shards of one artifact come from one tokenizer; tokenize again",
            )
        if fields.num_documents and fields.first_number <= last:
            raise InputError(
                f"{part.name} begins with document {fields.first_number:,} after {last:,}", where=place_of(part)
            )
        last = max(last, fields.last_number)
        sizes = (fields.num_documents, fields.num_tokens, fields.text_bytes)
        rows.append((fields.first_number, fields.last_number, *sizes, file.header_sum))
        names.append(part.name)
    assert first is not None, "an index needs a part"
    table = np.array(rows, np.int64)
    documents, tokens, text_bytes = (int(total) for total in table[:, 2:5].sum(axis=0))
    told = IndexFields(
        tokens, documents, text_bytes, first.vocab_size, len(parts), first.bos_id, first.eos_id, first.fingerprint
    )
    writer = SealedWriter(path, INDEX, page_bytes=PAGE_BYTES)
    listed = "".join(f"{name}\n" for name in names).encode("ascii")
    writer.finish(told.pack(), [("PARTS", "<i8", table), ("NAMES", "u1", np.frombuffer(listed, np.uint8))])
    return told
