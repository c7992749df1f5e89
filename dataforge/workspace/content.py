"""Content digests: what a part says, not how its container spells it.

Two Parquet files with the same schema and values have one content digest, whatever the compression, the row groups or
the library that wrote them. Every other file's content is its bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_READ_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, the form that digests are taken of. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """SHA-256 (64 hex) of a plain value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_of_file(path: Path) -> str:
    """SHA-256 (64 hex) of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def content_of_file(path: Path, sha256: str, name: str) -> str:
    """The content digest of a part: over schema and decoded values for Parquet, over the bytes for anything else.

    Args:
        path: the file, which may still have a temporary name.
        sha256: the digest of its bytes, so that other formats are not read twice.
        name: its final name, whose ending says the format.
    """
    return content_of_parquet(path) if name.endswith(".parquet") else sha256


def content_of_parquet(path: Path) -> str:
    """Digest of schema and values of a Parquet file, read in batches (bounded memory)."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        columns = [_Column(field.type) for field in schema]
        rows = 0
        for batch in file.iter_batches(batch_size=8192, use_threads=False):
            rows += batch.num_rows
            for column, hasher in zip(batch.columns, columns, strict=True):
                hasher.update(column)
    described = [[field.name, _type_name(field.type), hasher.digest()] for field, hasher in zip(schema, columns)]
    return digest_of({"rows": rows, "columns": described})


def _type_name(kind: pa.DataType) -> str:
    """One name for types that hold the same values: `string` and `large_string` are both text."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "binary"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list<{_type_name(kind.value_type)}>"
    return str(kind)


class _Column:
    """A running digest of one column that does not depend on how the rows were cut into batches."""

    def __init__(self, kind: pa.DataType) -> None:
        self.kind = kind
        self.present = hashlib.sha256()
        self.lengths = hashlib.sha256()
        self.values = hashlib.sha256()
        nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        self.child = _Column(kind.value_type) if nested else None

    def update(self, array: pa.Array) -> None:
        self.present.update(np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.uint8).tobytes())
        if self.child is not None:
            lengths = pa.compute.list_value_length(array).fill_null(0)
            self.lengths.update(lengths.to_numpy(zero_copy_only=False).astype(np.int64).tobytes())
            self.child.update(array.flatten())
        elif _type_name(self.kind) in ("string", "binary"):
            flat = array.cast(pa.large_binary())
            if flat.null_count:
                flat = flat.fill_null(b"")
            offsets = np.frombuffer(flat.buffers()[1], dtype=np.int64)[flat.offset : flat.offset + len(flat) + 1]
            self.lengths.update(np.diff(offsets).tobytes())
            data = flat.buffers()[2]
            if data is not None and len(offsets) > 1:
                self.values.update(memoryview(data)[int(offsets[0]) : int(offsets[-1])])
        else:
            filled = array.fill_null(False if pa.types.is_boolean(self.kind) else 0) if array.null_count else array
            self.values.update(np.ascontiguousarray(filled.to_numpy(zero_copy_only=False)).tobytes())

    def digest(self) -> list[Any]:
        own = [self.present.hexdigest(), self.lengths.hexdigest(), self.values.hexdigest()]
        return [*own, self.child.digest()] if self.child is not None else own
