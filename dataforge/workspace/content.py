"""Content digests: what a part says, not how its container spells it.

Two Parquet files with the same schema and values have one content digest, whatever the compression, the row groups or
the library that wrote them. Every other file's content is its bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

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
    if name.endswith(".parquet"):
        from dataforge.workspace.parquet_content import content_of_parquet  # a loader reads manifests without pyarrow

        return content_of_parquet(path)
    return sha256
