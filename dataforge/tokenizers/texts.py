"""Texts for native code: read where they lie, in Python's strings and bytes or in Arrow's buffers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from dataforge import _native
from dataforge.errors import TokenizerError
from dataforge.tokenizers.pretokenize import pretokens

Texts: TypeAlias = Sequence[str | bytes] | pa.Array | pa.ChunkedArray


def text_batch(texts: Texts) -> _native.TextBatch:
    """A native batch of the texts, without copying: it keeps them alive.

    Args:
        texts: a list or tuple of `str` and `bytes`, or an Arrow array of strings or binaries without nulls.
    Raises:
        TokenizerError: something among them is no text.
    """
    batch = _native.TextBatch()
    if isinstance(texts, pa.ChunkedArray):
        for chunk in texts.chunks:
            _add_arrow(batch, chunk)
    elif isinstance(texts, pa.Array):
        _add_arrow(batch, texts)
    else:
        _add_sequence(batch, texts)
    return batch


def _add_sequence(batch: _native.TextBatch, texts: Iterable[Any]) -> None:
    if isinstance(texts, str | bytes | bytearray | memoryview):
        raise TokenizerError(f"texts is one {type(texts).__name__}", hint="give a list of texts, or use `encode`")
    try:
        batch.add_sequence(texts if isinstance(texts, list | tuple) else list(texts))
    except (ValueError, TypeError) as problem:
        raise TokenizerError(str(problem), hint="texts are str or bytes") from problem


def _add_arrow(batch: _native.TextBatch, array: pa.Array) -> None:
    kind = array.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return _add_arrow(batch, array.cast(pa.large_binary()))
    large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    if not (large or pa.types.is_string(kind) or pa.types.is_binary(kind)):
        raise TokenizerError(f"an Arrow array of {kind} holds no texts", hint="give strings or binaries")
    if array.null_count:
        raise TokenizerError(
            f"{array.null_count:,} of {len(array):,} texts are null", hint="drop them, or fill them with ''"
        )
    if len(array) == 0:
        return None
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64 if large else np.int32)[array.offset : array.offset + len(array) + 1]
    bytes_ = np.frombuffer(data, dtype=np.uint8) if data is not None and data.size else np.zeros(0, dtype=np.uint8)
    try:
        batch.add_arrow(ends, bytes_)
    except ValueError as problem:
        raise TokenizerError(str(problem), hint="the Arrow array is damaged") from problem


def presplit(texts: Texts, pattern: str) -> tuple[list[bytes], np.ndarray]:
    """Pre-tokens of all texts by the `regex` package, and how many each text has: the way of patterns without a
    splitter of their own, some fifty times slower."""
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        text_batch(texts)  # refuses what is no text
        texts = texts.cast(pa.large_binary()).to_pylist()
    else:
        texts = list(texts)
        text_batch(texts)
    pieces: list[bytes] = []
    counts = np.zeros(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        own = pretokens(text, pattern)
        counts[i] = len(own)
        pieces += own
    return pieces, counts


def threads_of(num_threads: int | None) -> int:
    """The number of threads asked for; None means one for each core this process may use."""
    if num_threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_threads < 1:
        raise TokenizerError(f"num_threads must be at least 1, got {num_threads}")
    return num_threads
