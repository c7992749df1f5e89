"""The content digest of a Parquet file: schema and decoded values, whatever the compression and the row groups."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataforge.workspace.content import digest_of


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
