"""Token shards, mapped: documents by number, spans of many parts gathered into one array."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dataforge.errors import ChecksumMismatch, ConfigError, FormatError, InputError, WorkspaceError
from dataforge.shards.container import SealedFile, padded, place_of
from dataforge.shards.crc32c import native
from dataforge.shards.format import SHARD, ShardFields, dtype_of, read_index

GATHER_DTYPES = ("int64", "int32", "uint32", "uint16")


class Shards:
    """A shards artifact, opened by its index; parts are mapped when they are first needed.

    Every page of tokens is compared with its checksum at its first touch in the process, every document table at its
    first use. Safe to use from several threads; after `fork` the maps stay valid in the child.

    Args:
        artifact_or_folder: a shards Artifact, or the folder of one.
    Raises:
        FormatError, ChecksumMismatch: something is not what was written.
    """

    def __init__(self, artifact_or_folder: Any) -> None:
        self.folder = Path(getattr(artifact_or_folder, "path", artifact_or_folder))
        self._fields, self._page_bytes, self._names, self._table = read_index(self.folder)
        self.dtype = dtype_of(self._fields.vocab_size)
        holders = np.flatnonzero(self._table[:, 2] > 0)  # parts that hold a document
        self._holders, self._firsts = holders, self._table[holders, 0].copy()
        self._first_number, self._num_documents = self._table[:, 0].copy(), self._table[:, 2].copy()
        self._num_tokens = self._table[:, 3].copy()
        self._maps = _Maps(len(self._names))
        pages = [-(-padded(int(tokens) * self.dtype.itemsize) // self._page_bytes) for tokens in self._num_tokens]
        self._page_base = np.concatenate([[0], np.cumsum(pages)]).astype(np.int64)
        self._checked = np.zeros(int(self._page_base[-1]), bool)

    @property
    def num_tokens(self) -> int:
        """Tokens in all, beginnings and ends of text included."""
        return self._fields.num_tokens

    @property
    def num_documents(self) -> int:
        return self._fields.num_documents

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of text in all."""
        return self._fields.text_bytes

    @property
    def vocab_size(self) -> int:
        return self._fields.vocab_size

    @property
    def fingerprint(self) -> bytes:
        """Of the tokenizer, 32 bytes; the same in all parts."""
        return self._fields.fingerprint

    @property
    def bos_id(self) -> int | None:
        """The id before every document, if there is one."""
        return self._fields.bos_id if self._fields.bos_id >= 0 else None

    @property
    def eos_id(self) -> int | None:
        """The id after every document, if there is one."""
        return self._fields.eos_id if self._fields.eos_id >= 0 else None

    def locate(self, numbers: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where documents lie: part, first token and number of tokens, three int64 arrays.

        Args:
            numbers: int64 document numbers, any order, repeats allowed.
        Raises:
            InputError: a number is in none of the parts.
        """
        wanted = np.atleast_1d(np.asarray(numbers, np.int64))
        part = self._part_of(wanted)
        start, length = np.empty(wanted.size, np.int64), np.empty(wanted.size, np.int64)
        if native is None:
            for group, held, index in self._by_part(wanted, part):
                start[group] = np.where(index > 0, held.ends[index - 1], 0)
                length[group] = held.ends[index] - start[group]
            return part, start, length
        maps = self._maps
        for index in np.unique(part[maps.ends_at[part] == 0]).tolist():
            held = self._part(index, maps)
            maps.numbers_at[index] = 0 if held.dense else held.numbers.ctypes.data
            maps.ends_at[index] = held.ends.ctypes.data
        tables = (maps.numbers_at, maps.ends_at, self._first_number, self._num_documents)
        found = native.locate_documents(part, np.ascontiguousarray(wanted), *tables, start, length)
        if found != wanted.size:
            raise self._missing(int(wanted[found]))
        return part, start, length

    def lengths(self, numbers: Any) -> np.ndarray:
        """Tokens of each document, int64, beginnings and ends of text included."""
        return self.locate(numbers)[2]

    def text_bytes_of(self, numbers: Any) -> np.ndarray:
        """UTF-8 bytes of each document's text, int64."""
        wanted = np.atleast_1d(np.asarray(numbers, np.int64))
        sizes = np.empty(wanted.size, np.int64)
        for group, held, index in self._by_part(wanted, self._part_of(wanted)):
            sizes[group] = held.sizes[index]
        return sizes

    def tokens(self, number: int) -> np.ndarray:
        """The token ids of one document, a read-only view of the mapped shard."""
        part, start, length = (int(told[0]) for told in self.locate(number))
        self.check(np.array([part]), np.array([start]), np.array([length]))
        return self._part(part).tokens[start : start + length]

    def numbers(self) -> Iterator[np.ndarray]:
        """The document numbers, part by part, rising."""
        for part in range(len(self._names)):
            yield self._part(part).numbers

    def check(self, part: np.ndarray, start: np.ndarray, length: np.ndarray) -> None:
        """Compare every page that the spans touch with its checksum, unless this process has done so before."""
        held = length > 0
        if not held.all():
            part, start, length = part[held], start[held], length[held]
        item = self.dtype.itemsize
        first = self._page_base[part] + start * item // self._page_bytes
        last = self._page_base[part] + ((start + length) * item - 1) // self._page_bytes
        doubtful = np.flatnonzero(~(self._checked[first] & self._checked[last]) | (last - first > 1))
        for i in doubtful.tolist():
            begin, end = int(first[i]), int(last[i]) + 1
            for page in (begin + np.flatnonzero(~self._checked[begin:end])).tolist():
                self._part(int(part[i])).check_page(page - int(self._page_base[part[i]]))
                self._checked[page] = True

    def gather(self, part: np.ndarray, start: np.ndarray, length: np.ndarray, out: np.ndarray) -> None:
        """Copy spans, one behind the other, to a flat array that they fill exactly.

        Args:
            part, start, length: int64, as `locate` gives them; spans may be cut out of documents.
            out: flat, contiguous, of type int64, int32, uint32, or uint16 where the shards have that.
        Raises:
            ChecksumMismatch: a page is not what was written; nothing of it reaches `out`.
        """
        if out.dtype.name not in GATHER_DTYPES or out.dtype.itemsize < self.dtype.itemsize:
            raise ConfigError(f"tokens of type {self.dtype.name} cannot be read as {out.dtype.name}")
        maps = self._maps  # they live on here if another thread calls `close`
        self.check(part, start, length)
        for index in np.unique(part[maps.tokens_at[part] == 0]).tolist():
            maps.tokens_at[index] = self._part(index, maps).tokens.ctypes.data
        if native is not None:
            spans = (np.ascontiguousarray(told, np.int64) for told in (part, start, length))
            native.gather_spans(*spans, maps.tokens_at, self._num_tokens, self.dtype.itemsize, out)
            return
        at = 0
        for index, begin, size in zip(part.tolist(), start.tolist(), length.tolist(), strict=True):
            out[at : at + size] = self._part(index).tokens[begin : begin + size]
            at += size
        if at != out.size:
            raise ValueError(f"the spans hold {at:,} tokens, the output {out.size:,}")

    def check_all(self) -> None:
        """Compare every byte with its checksum."""
        for index in range(len(self._names)):
            part = self._part(index)
            part.file.check_all_pages()
            _ = part.numbers, part.ends, part.sizes

    def close(self) -> None:
        """Let go of the maps; they go when the last array that looks into them does."""
        self._maps = _Maps(len(self._names))

    def _part_of(self, wanted: np.ndarray) -> np.ndarray:
        """The part whose range of numbers holds each number."""
        place = np.searchsorted(self._firsts, wanted, "right") - 1
        if wanted.size and int(place.min()) < 0:
            raise self._missing(int(wanted[place < 0][0]))
        return self._holders[place] if wanted.size else np.zeros(0, np.int64)

    def _by_part(self, wanted: np.ndarray, part: np.ndarray) -> Iterator[tuple[np.ndarray, _Part, np.ndarray]]:
        """For each part: which of the wanted are in it, the part, and their places in its tables."""
        order = np.argsort(part, kind="stable")
        borders = np.flatnonzero(np.diff(part[order])) + 1
        for group in np.split(order, borders) if wanted.size else []:
            held = self._part(int(part[group[0]]))
            index = held.index_of(wanted[group])
            if int(index.min()) < 0:
                raise self._missing(int(wanted[group[index < 0]][0]))
            yield group, held, index

    def _missing(self, number: int) -> InputError:
        return InputError(
            f"document number {number:,} is in none of the {len(self._names):,} parts",
            where=place_of(self.folder / "index.tok"),
            hint="plan and shards must come from the same documents: tokenize what the plan was made from",
        )

    def _part(self, index: int, maps: _Maps | None = None) -> _Part:
        maps = maps or self._maps
        part = maps.parts.get(index)
        if part is None:
            try:
                part = _Part(self.folder / self._names[index], self._table[index], self._page_bytes)
            except OSError as error:
                raise WorkspaceError(
                    f"{self._names[index]} cannot be mapped: {error.strerror}",
                    where=str(self.folder),
                    hint="raise `ulimit -n` above the number of parts" if error.errno == errno.EMFILE else None,
                ) from error
            part = maps.parts.setdefault(index, part)  # of two threads, both take the first one's map
        return part


class _Maps:
    """The parts that are mapped, and where their tables lie in memory (0: not yet looked at)."""

    def __init__(self, num_parts: int) -> None:
        self.parts: dict[int, _Part] = {}
        self.tokens_at, self.ends_at, self.numbers_at = (np.zeros(num_parts, np.uint64) for _ in range(3))


class _Part:
    """One mapped shard."""

    def __init__(self, path: Path, told: np.ndarray, page_bytes: int) -> None:
        if not path.is_file():
            raise FormatError(
                f"{path.name} is missing", where=place_of(path), hint="`dataforge verify` says what is gone"
            )
        self.file = SealedFile(path, SHARD)
        self.fields = ShardFields.of(self.file)
        if self.file.header_sum != int(told[5]) or self.file.page_bytes != page_bytes:
            raise ChecksumMismatch(
                f"{path.name} is another shard (header {self.file.header_sum:08x}) than is listed ({int(told[5]):08x})",
                where=place_of(path),
                hint="the file was swapped or made by another run; `dataforge tokenize --remake` writes it again",
            )
        self.tokens = self.file.paged()
        self._items = page_bytes // self.tokens.itemsize
        self.dense = self.fields.last_number - self.fields.first_number + 1 == self.fields.num_documents

    @cached_property
    def numbers(self) -> np.ndarray:
        """Document numbers, int64, rising."""
        table = self.file.section("DOCNUMBER")
        ends = (int(table[0]), int(table[-1])) if table.size else (-1, -1)
        if ends != (self.fields.first_number, self.fields.last_number) or (table[1:] <= table[:-1]).any():
            raise self.file.fail("lists documents that its header does not, or out of order")
        return table

    @cached_property
    def ends(self) -> np.ndarray:
        """Where each document ends, int64."""
        table = self.file.section("DOCEND").view(np.int64)
        last = int(table[-1]) if table.size else 0
        if last != self.fields.num_tokens or (table[1:] < table[:-1]).any() or (table[:1] < 0).any():
            raise self.file.fail(f"ends its documents at token {last:,} of {self.fields.num_tokens:,}, or out of order")
        return table

    @cached_property
    def sizes(self) -> np.ndarray:
        """UTF-8 bytes of each document's text, int64."""
        return self.file.section("DOCBYTES").view(np.int64)

    def index_of(self, numbers: np.ndarray) -> np.ndarray:
        """Position of each document number in this part, -1 where it is not."""
        if self.dense:
            index = numbers - self.fields.first_number
            return np.where(index < self.fields.num_documents, index, -1)
        table = self.numbers
        index = np.searchsorted(table, numbers)
        found = table[np.minimum(index, table.size - 1)] == numbers
        return np.where(found, index, -1)

    def check_page(self, page: int) -> None:
        """Compare one page with its checksum, and its ids with the largest one of the shard."""
        self.file.check_page(page)
        held = self.tokens[page * self._items : (page + 1) * self._items]
        if held.size and int(held.max()) > self.fields.max_token_id:
            largest = self.fields.max_token_id
            raise self.file.fail(f"has token id {int(held.max()):,} in page {page}, its largest is {largest:,}")
