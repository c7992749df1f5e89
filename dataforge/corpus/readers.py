"""Rows of raw files: JSONL (plain, .gz, .zst), Parquet, text. Every row is a document or a reason; none is skipped.

Lines end at `\\n` alone: text may hold U+2028, U+000C and other characters that `str.splitlines` would cut at.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dataforge.errors import ConfigError, InputError

JSONL = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst")
PARQUET = (".parquet",)
TEXT = (".txt", ".md", ".rst", ".text")
MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True)
class RawRow:
    """One row of a raw file: its values, or why it has none."""

    position: int
    """Line (JSONL) or row (Parquet), from 1; 1 for a text file."""
    values: dict[str, Any] | None
    size_bytes: int
    """Bytes of the raw row; for a document its text's bytes are counted instead."""
    bad: str | None = None
    """The reason, where there are no values: `broken-json`, `not-an-object`, `invalid-utf-8`, `line-too-long`."""


def format_of(path: str) -> str | None:
    """`jsonl`, `parquet` or `text` by the file's ending; None for any other."""
    lower = path.lower()
    for name, endings in (("jsonl", JSONL), ("parquet", PARQUET), ("text", TEXT)):
        if lower.endswith(endings):
            return name
    return None


def rows_of(path: Path, relative: str, kind: str) -> Iterator[RawRow]:
    """The rows of one file.

    Raises:
        InputError: the container itself is broken: a truncated gzip or zstd stream, a file that is no Parquet.
    """
    if kind == "jsonl":
        return _jsonl(path, relative)
    if kind == "parquet":
        return _parquet(path, relative)
    if kind == "text":
        return _text(path)
    raise ConfigError(f"no reader is called {kind!r}", hint="use jsonl, parquet or text")


def _jsonl(path: Path, relative: str) -> Iterator[RawRow]:
    line_number = 0
    try:
        with _opened(path) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                line_number += 1
                size = len(line)
                if size > MAX_LINE_BYTES and not line.endswith(b"\n"):
                    size += _skip_line(file)
                    yield RawRow(line_number, None, size, "line-too-long")
                elif line.strip():
                    yield _parse(line, line_number, relative)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"the gzip stream is broken after line {line_number:,}: {error}",
            where=relative,
            hint="fetch or compress the file again; nothing was taken from it",
        ) from error
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise InputError(
            f"the compressed stream is broken after line {line_number:,}: {error}",
            where=relative,
            hint="fetch or compress the file again; nothing was taken from it",
        ) from error


def _parse(line: bytes, line_number: int, relative: str) -> RawRow:
    raw = line.rstrip(b"\r\n")
    if line_number == 1:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        values = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return RawRow(line_number, None, len(raw), "invalid-utf-8")
    except (ValueError, RecursionError):
        return RawRow(line_number, None, len(raw), "broken-json")
    if not isinstance(values, dict):
        return RawRow(line_number, None, len(raw), "not-an-object")
    return RawRow(line_number, values, len(raw))


def _skip_line(file: BinaryIO) -> int:
    """Read on to the end of an over-long line in bounded memory. Returns the bytes passed over."""
    passed = 0
    while piece := file.readline(1 << 20):
        passed += len(piece)
        if piece.endswith(b"\n"):
            break
    return passed


def _opened(path: Path) -> BinaryIO:
    lower = path.name.lower()
    if lower.endswith(".gz"):
        return io.BufferedReader(gzip.open(path, "rb"), 1 << 20)
    if lower.endswith(".zst"):
        return io.BufferedReader(_Zstd(path), 1 << 20)
    return open(path, "rb", buffering=1 << 20)


class _Zstd(io.RawIOBase):
    """A zstd file as a raw stream. A stream that ends inside a frame is an error, not an end."""

    def __init__(self, path: Path) -> None:
        self._stream = pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _parquet(path: Path, relative: str) -> Iterator[RawRow]:
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=512, use_threads=False):
                for values in _pylist(batch):
                    row += 1
                    if values is None:
                        yield RawRow(row, None, 0, "invalid-utf-8")
                    else:
                        yield RawRow(row, values, 0)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise InputError(
            f"the Parquet file is broken after row {row:,}: {str(error)[:200]}",
            where=relative,
            hint="fetch or write the file again; nothing was taken from it",
        ) from error


def _pylist(batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """Rows as Python values; a row whose bytes are not UTF-8 becomes None."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        rows: list[dict[str, Any] | None] = []
        for index in range(batch.num_rows):
            try:
                rows += batch.slice(index, 1).to_pylist()
            except UnicodeDecodeError:
                rows.append(None)
        return rows


def _text(path: Path) -> Iterator[RawRow]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        yield RawRow(1, None, len(data), "invalid-utf-8")
        return
    yield RawRow(1, {"text": text}, len(data))
