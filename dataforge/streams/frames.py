"""Bytes on the wire: a window of rows is a META frame, DATA frames, and an END frame. docs/formats.md has every byte.

A frame is a header of 64 bytes, a segment table, and a payload. Both parts carry CRC-32C. Whoever reads a frame checks
the header, then every size against what was asked for, and only then takes memory. A window that stops without its END
frame is torn, whatever TCP says.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from dataforge.errors import ChecksumMismatch, FormatError
from dataforge.shards.crc32c import crc32c

MEDIA_TYPE = "application/vnd.dataforge.rows;v=1"
MAGIC = b"DFFR"
VERSION = 1
HEADER_BYTES = 64
SEGMENT_BYTES = 32
MAX_JSON_BYTES = 64 << 10
"""Most bytes of a META, ERROR or GOAWAY payload."""

_HEADER = struct.Struct("<4sBBHQIIIIIIQ12xI")


class FrameType(IntEnum):
    """What a frame holds."""

    DATA = 1
    """Rows: segment table, then token ids."""
    META = 2
    """First frame of a window: JSON that says what follows."""
    END = 3
    """Last frame of a whole window."""
    ERROR = 4
    """In place of the rest: an RFC 9457 problem as JSON, because the status line is already gone."""
    GOAWAY = 5
    """In place of the rest: this server is going down, ask another one, or again."""


@dataclass(frozen=True)
class Header:
    """The first 64 bytes of a frame."""

    type: FrameType
    item_bytes: int = 0
    """2 or 4, bytes of a token id; 0 where there are none."""
    first_row: int = 0
    """DATA: number of the first row. END: the cursor after the window."""
    num_rows: int = 0
    """DATA: rows in the frame. END: rows in the window."""
    row_length: int = 0
    payload_bytes: int = 0
    table_bytes: int = 0
    body_crc32c: int = 0
    """Over segment table and payload. END: over the headers of all DATA frames of the window, in order."""
    sequence: int = 0
    """Number of the frame in its window, from 0."""
    rows_digest: int = 0
    """First 8 bytes of the rows' content digest, big-endian: frames of other rows are never mixed in."""

    @property
    def body_bytes(self) -> int:
        return self.table_bytes + self.payload_bytes

    def pack(self) -> bytes:
        """The 64 bytes, with their own checksum."""
        body = _HEADER.pack(
            MAGIC,
            VERSION,
            self.type,
            self.item_bytes,
            self.first_row,
            self.num_rows,
            self.row_length,
            self.payload_bytes,
            self.table_bytes,
            self.body_crc32c,
            self.sequence,
            self.rows_digest,
            0,
        )[:-4]
        return body + crc32c(body).to_bytes(4, "little")

    @classmethod
    def unpack(cls, data: Any, where: str) -> Header:
        """Read a header. Raises FormatError or ChecksumMismatch."""
        told = bytes(data)
        if told[:4] != MAGIC:
            raise FormatError("the stream holds something else than a frame", where=where, hint=_HINT)
        *fields, header_sum = _HEADER.unpack(told)
        found = crc32c(told[:-4])
        if found != header_sum:
            raise ChecksumMismatch(
                f"a frame header has crc32c {found:08x}, it was sent with {header_sum:08x}", where=where, hint=_HINT
            )
        _, version, kind, *rest = fields
        if version != VERSION or kind not in list(FrameType):
            raise FormatError(
                f"a frame of version {version} and type {kind} came, version {VERSION} is known here",
                where=where,
                hint="use the same dataforge-lm on both sides, or a newer one here",
            )
        if any(told[48:60]):
            raise FormatError("a frame header has reserved bytes that are not zero", where=where, hint=_HINT)
        return cls(FrameType(kind), *rest)


_HINT = "the window is asked for again; if this lasts, something between server and client changes bytes"


def json_frame(kind: FrameType, value: Mapping[str, Any], *, sequence: int, rows_digest: int) -> bytes:
    """A META, ERROR or GOAWAY frame: header and JSON."""
    payload = json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()
    assert len(payload) <= MAX_JSON_BYTES, "too much JSON for a frame"
    header = Header(
        kind, payload_bytes=len(payload), body_crc32c=crc32c(payload), sequence=sequence, rows_digest=rows_digest
    )
    return header.pack() + payload


def check_data(header: Header, *, row_length: int, item_bytes: int, max_rows: int, where: str) -> None:
    """Compare the sizes a DATA header claims with what was asked for, before any memory is taken for them.

    Raises:
        FormatError: a size does not follow from the row length, the type and the number of rows, or is too large.
    """
    tokens = header.num_rows * (row_length + 1)
    sound = header.row_length == row_length and header.item_bytes == item_bytes
    sound = sound and 0 < header.num_rows <= max_rows and header.payload_bytes == tokens * item_bytes
    sound = sound and header.table_bytes % SEGMENT_BYTES == 0
    if not sound or not header.num_rows <= header.table_bytes // SEGMENT_BYTES <= tokens:
        raise FormatError(
            f"a frame claims {header.num_rows:,} rows of {header.row_length:,} tokens of {header.item_bytes} bytes in "
            f"{header.payload_bytes:,} bytes, with {header.table_bytes:,} bytes of segments; rows of {row_length:,} "
            f"tokens of {item_bytes} bytes were asked for, {max_rows:,} of them at most",
            where=where,
            hint=_HINT,
        )


def check_body(header: Header, body: Any, where: str) -> None:
    """Compare a body with the checksum in its header. Raises ChecksumMismatch."""
    found = crc32c(body)
    if found != header.body_crc32c:
        raise ChecksumMismatch(
            f"frame {header.sequence} ({header.type.name}, from row {header.first_row:,}, {header.body_bytes:,} bytes) "
            f"has crc32c {found:08x}, it was sent with {header.body_crc32c:08x}",
            where=where,
            hint=_HINT,
        )


def check_segments(segments: np.ndarray, rows: np.ndarray, row_length: int, where: str) -> None:
    """Check that a segment table tells of exactly these rows, in order, with lengths that sum to L+1 each.

    Raises:
        FormatError: it does not.
    """
    length = segments[:, 3]
    if length.size and 0 < length.min() <= length.max() <= row_length + 1 and segments[:, 1:3].min() >= 0:
        ends, row_ends = np.cumsum(length), (row_length + 1) * np.arange(1, rows.size + 1, dtype=np.int64)
        last = np.searchsorted(ends, row_ends)
        fits = int(last[-1]) == ends.size - 1 and (ends[last] == row_ends).all()
        if fits and (segments[:, 0] == np.repeat(rows, np.diff(last, prepend=-1))).all():
            return
    raise FormatError(
        f"a segment table of {segments.shape[0]:,} entries does not describe the {rows.size:,} rows asked for",
        where=where,
        hint=_HINT,
    )
