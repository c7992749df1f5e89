"""How often each pre-token occurs in some texts: all that training needs to know of them.

Counts of parts add up to the counts of the whole, so they can be made in parallel, on several machines, and go on with
more text later; the result depends on the texts alone, not on their order or the number of threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataforge import _native
from dataforge.errors import TokenizerError
from dataforge.tokenizers.pretokenize import native_pattern, pattern_name
from dataforge.tokenizers.texts import Texts, presplit, text_batch, threads_of

SCHEMA = pa.schema([("word", pa.binary()), ("count", pa.int64())])
"""Columns of a counts file, in ascending order of the words' bytes; the pattern is in the schema's metadata."""

_ROWS_AT_ONCE = 1 << 16
_BATCH_BYTES = 32 << 20
_MOST_BYTES = 1 << 62


@dataclass(frozen=True, eq=False)
class WordCounts:
    """Distinct pre-tokens in ascending order of their bytes, and how often each occurs."""

    pattern: str
    """The pattern they were cut by."""
    data: np.ndarray
    """The words' bytes, one behind the other, uint8."""
    offsets: np.ndarray
    """Where each begins, int64, shape (words + 1,)."""
    counts: np.ndarray
    """int64, shape (words,), at least 1."""

    def __len__(self) -> int:
        """Distinct words."""
        return len(self.counts)

    @property
    def num_words(self) -> int:
        """Words, repeats counted."""
        return int(self.counts.sum())

    @property
    def num_bytes(self) -> int:
        """Bytes of the texts."""
        return sum(int(size) * int(count) for size, count in zip(*self._sizes_and_counts(), strict=True))

    def _sizes_and_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts by word length: few enough to add up in whole numbers of any size."""
        sizes, places = np.unique(np.diff(self.offsets), return_inverse=True)
        totals = np.zeros(len(sizes), dtype=np.int64)
        np.add.at(totals, places, self.counts)
        return sizes, totals

    def items(self) -> Iterator[tuple[bytes, int]]:
        """(word, count) in order."""
        data = self.data.tobytes()
        for (first, last), count in zip(itertools.pairwise(self.offsets.tolist()), self.counts.tolist(), strict=True):
            yield data[first:last], count

    def __add__(self, other: WordCounts) -> WordCounts:
        """The counts of both texts together. Raises TokenizerError if they were cut by different patterns."""
        if self.pattern != other.pattern:
            raise TokenizerError(
                f"words cut by {self.pattern!r} and by {other.pattern!r} cannot be added", hint="count with one pattern"
            )
        counter = _native.WordCounts()
        for each in (self, other):
            counter.add_counts(each.data, each.offsets, each.counts)
        if self.num_bytes + other.num_bytes >= _MOST_BYTES:
            raise TokenizerError("the counts add up to 2^62 bytes or more", hint="train on fewer texts")
        return WordCounts(self.pattern, *counter.sorted())

    def save(self, path: Path | str) -> None:
        """Write a Parquet file with the columns `word` (binary) and `count` (int64)."""
        schema = SCHEMA.with_metadata({"dataforge.pattern": self.pattern})
        words = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(self), [None, pa.py_buffer(self.offsets), pa.py_buffer(self.data)]
        )
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
            for first in range(0, max(len(self), 1), _ROWS_AT_ONCE):
                rows = slice(first, first + _ROWS_AT_ONCE)
                for some in _pieces_below_2_gib(words[rows], self.counts[rows]):
                    writer.write_batch(pa.record_batch(some, schema=schema))

    @classmethod
    def load(cls, path: Path | str) -> WordCounts:
        """The counts in a file that `save` wrote.

        Raises:
            TokenizerError: it is none, or its words are out of order or repeated, or a count is below 1.
        """
        try:
            table = pq.read_table(path, use_threads=False)
            words = table.column("word").cast(pa.large_binary())
            counts = table.column("count").cast(pa.int64())
            pattern = (table.schema.metadata or {})[b"dataforge.pattern"].decode()
        except (pa.ArrowException, OSError, KeyError, ValueError) as problem:
            raise TokenizerError(f"the word counts cannot be read: {problem}", where=str(path)) from problem
        if words.null_count or counts.null_count:
            raise TokenizerError("a word or a count is null", where=str(path))
        arrow = pa.concat_arrays([pa.array([], pa.large_binary()), *words.chunks])
        _, offsets, data = arrow.buffers()
        found = cls(
            pattern,
            np.frombuffer(data or b"", dtype=np.uint8),
            np.frombuffer(offsets, np.int64)[: len(arrow) + 1] if len(arrow) else np.zeros(1, np.int64),
            np.ascontiguousarray(counts.to_numpy()),
        )
        try:
            _native.check_words(found.data, found.offsets, found.counts)
        except ValueError as problem:
            raise TokenizerError(f"the word counts are damaged: {problem}", where=str(path)) from problem
        return found


def count(texts: Texts | Iterable[str | bytes], *, pattern: str = "gpt2", num_threads: int | None = None) -> WordCounts:
    """How often each pre-token occurs in the texts.

    Args:
        texts: `str` and `bytes`, from any iterable (read in batches of about 32 MB) or an Arrow array of strings.
        pattern: how text is cut: a name of `pretokenize.PATTERNS`, or a regular expression (slow, in one thread).
        num_threads: threads to use; None for one a core. The result is the same for any number.
    Raises:
        TokenizerError: a text is none, or the pattern does not compile.

    >>> dict(count(["to be or not to be"]).items())
    {b' be': 2, b' not': 1, b' or': 1, b' to': 1, b'to': 1}
    """
    pattern = pattern_name(pattern)
    threads = threads_of(num_threads)
    counter = _native.WordCounts()
    for batch in _batches(texts):
        if native_pattern(pattern):
            counter.add(text_batch(batch), pattern, threads)
        else:
            counter.add(text_batch(presplit(batch, pattern)[0]), "whole", threads)
    return WordCounts(pattern, *counter.sorted())


def _batches(texts: Texts | Iterable[str | bytes]) -> Iterator[Texts]:
    if isinstance(texts, pa.Array | pa.ChunkedArray | str | bytes):
        yield texts  # one string is refused where batches are made
        return
    batch: list[Any] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text) if isinstance(text, str | bytes) else 1
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pieces_below_2_gib(words: pa.LargeBinaryArray, counts: np.ndarray) -> Iterator[list[pa.Array]]:
    """Rows with words of the type `binary`, cut so that each piece's bytes can be addressed by 32 bits."""
    if words.nbytes < 1 << 31 or len(words) == 1:
        yield [words.cast(pa.binary()), pa.array(counts, pa.int64())]
        return
    half = len(words) // 2
    yield from _pieces_below_2_gib(words[:half], counts[:half])
    yield from _pieces_below_2_gib(words[half:], counts[half:])
