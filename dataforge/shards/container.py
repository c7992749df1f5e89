"""A sealed file: a header, sections, a trailer, and a checksum over every byte of it. docs/formats.md has the bytes.

A file is refused in O(1), before it is mapped, when it is torn, truncated, over-long or foreign: the size on disk, the
size in the header and the size in the trailer must agree, and both ends carry checksums. The first section may be
*paged*: its pages are checked one by one, each at its first touch in the process. Every other section is checked whole
at its first touch. Sections lie one behind the other from byte 4096, padded with zeros to 4096 bytes; the checksums
cover the padding, so there is no byte that nobody looks at.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataforge.errors import ChecksumMismatch, FormatError
from dataforge.shards.crc32c import as_bytes, crc32c, crc32c_pages, joined

MAGIC = b"\x89DFC\r\n\x1a\n"
END_MAGIC = b"DFC.END\n"
VERSION = 1
HEADER_BYTES = 4096
TRAILER_BYTES = 64
ALIGNMENT = 4096
FIELDS_AT = 64
TABLE_AT = 512
ENTRY_BYTES = 64
MAX_SECTIONS = (HEADER_BYTES - 64 - TABLE_AT) // ENTRY_BYTES
PAGE_SUMS = "PAGECRC"

_HEAD = struct.Struct("<8s8sIIQII24x")  # magic, kind, version, header bytes, file bytes, page bytes, sections
_ENTRY = struct.Struct("<16sQQI4s24x")  # name, offset, length, crc32c, item type
_TRAILER = struct.Struct("<8sQI40xI")  # magic, file bytes, header crc32c, trailer crc32c
_ITEMS = {"u1": 1, "<u2": 2, "<u4": 4, "<u8": 8, "<i8": 8}


def padded(num_bytes: int) -> int:
    """`num_bytes` rounded up to the alignment of sections."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def place_of(path: Path) -> str:
    """How errors name the artifact that a file belongs to: `shards/web@77ad03c1be52`, else the path."""
    return f"{path.parent.parent.name}/{path.parent.name}" if "@" in path.parent.name else str(path)


@dataclass(frozen=True)
class Kind:
    """One kind of sealed file: its name on disk, its fields in the header, and the command that makes it again."""

    name: str
    """At most eight ASCII characters."""
    fields: struct.Struct
    """Layout of the kind's own header fields, little-endian."""
    command: str
    """`tokenize` for shards: errors hint at `dataforge tokenize --remake ...`."""
    paged: str | None = None
    """Name of the first section, if it is checked by pages."""


def _foreign(path: Path, what: str, kind: Kind) -> FormatError:
    return FormatError(f"{path.name} {what}", where=place_of(path), hint=_remake(path, kind))


def _remake(path: Path, kind: Kind) -> str:
    artifact = f"{path.parent.parent.name}/{path.parent.name.partition('@')[0]}"
    return f"`dataforge {kind.command} --remake {path.name} {artifact}` writes that part again"


# -- writing


class SealedWriter:
    """Writes one sealed file: the paged section in pieces, then the others, then the header.

    Memory is one page. The header is written last, so a file whose writer was killed has none and is refused.
    """

    def __init__(self, path: Path, kind: Kind, *, page_bytes: int, item: str = "u1") -> None:
        assert page_bytes > 0, "a page has bytes"
        assert page_bytes % ALIGNMENT == 0, "pages are multiples of 4096 bytes"
        self._path, self._kind, self._page_bytes, self._item = path, kind, page_bytes, item
        self._page = np.zeros(page_bytes, np.uint8)
        self._filled = 0
        self._sums: list[int] = []
        self._length = 0
        self._sum = 0
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 (closed by close() or finish())
        self._write(bytes(HEADER_BYTES))

    def append(self, data: np.ndarray) -> None:
        """Append items to the paged section."""
        view = as_bytes(np.ascontiguousarray(data))
        self._length += view.size
        while view.size:
            taken = min(view.size, self._page_bytes - self._filled)
            self._page[self._filled : self._filled + taken] = view[:taken]
            self._filled += taken
            view = view[taken:]
            if self._filled == self._page_bytes:
                self._flush(self._page_bytes)

    def finish(self, fields: bytes, sections: list[tuple[str, str, np.ndarray]]) -> None:
        """Write the other sections (name, item type, array), the header and the trailer, and close the file."""
        entries = []
        offset = HEADER_BYTES
        if self._kind.paged:
            if self._filled:
                end = padded(self._filled)
                self._page[self._filled : end] = 0
                self._flush(end)
            entries.append(_ENTRY.pack(self._kind.paged.encode(), offset, self._length, self._sum, self._item.encode()))
            offset += padded(self._length)
            sections = [*sections, (PAGE_SUMS, "<u4", np.array(self._sums, "<u4"))]
        for name, item, array in sections:
            data = as_bytes(np.ascontiguousarray(array, dtype=item))
            zeros = bytes(padded(data.size) - data.size)
            entries.append(_ENTRY.pack(name.encode(), offset, data.size, crc32c(zeros, crc32c(data)), item.encode()))
            self._write(data)
            self._write(zeros)
            offset += padded(data.size)
        size = offset + TRAILER_BYTES
        header = bytearray(HEADER_BYTES)
        head = (MAGIC, self._kind.name.encode(), VERSION, HEADER_BYTES, size, self._page_bytes, len(entries))
        _HEAD.pack_into(header, 0, *head)
        header[FIELDS_AT : FIELDS_AT + len(fields)] = fields
        table = b"".join(entries)
        header[TABLE_AT : TABLE_AT + len(table)] = table
        header_sum = crc32c(memoryview(header)[:-4])
        header[-4:] = header_sum.to_bytes(4, "little")
        body = _TRAILER.pack(END_MAGIC, size, header_sum, 0)[:-4]
        self._write(body + crc32c(body).to_bytes(4, "little"))
        self._file.seek(0)
        self._write(header)
        self.close()

    def close(self) -> None:
        """Close the file; without `finish` it stays without a header."""
        self._file.close()

    def _flush(self, size: int) -> None:
        page = self._page[:size]
        page_sum = crc32c(page)
        self._sums.append(page_sum)
        self._sum = joined(self._sum, page_sum, size)
        self._write(page)
        self._filled = 0

    def _write(self, data: Any) -> None:
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        while len(view):
            view = view[self._file.write(view) :]


# -- reading


@dataclass(frozen=True)
class Section:
    """Where a section lies; its checksum covers it and its padding."""

    name: str
    offset: int
    length: int
    crc32c: int
    item: str


class SealedFile:
    """A sealed file, opened in O(1) and mapped on first use.

    Raises:
        FormatError: the file is torn, truncated, over-long, of another kind or of a later version.
        ChecksumMismatch: header, trailer, a section or a page is not what was written.
    """

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path, self.kind = path, kind
        with open(path, "rb", buffering=0) as file:
            self.size = os.fstat(file.fileno()).st_size
            if self.size < HEADER_BYTES + TRAILER_BYTES:
                raise self._error(f"has {self.size:,} bytes, a header and a trailer alone take more")
            header = _read_at(file, 0, HEADER_BYTES)
            trailer = _read_at(file, self.size - TRAILER_BYTES, TRAILER_BYTES)
            self._check_ends(header, trailer)
            self.sections = self._table(header)
            self._map = _map(file.fileno(), self.size)
        self.fields = header[FIELDS_AT : FIELDS_AT + kind.fields.size]
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._whole: dict[str, np.ndarray] = {}

    # -- O(1) checks

    def _check_ends(self, header: bytes, trailer: bytes) -> None:
        magic, name, version, header_bytes, size, self.page_bytes, self._num_sections = _HEAD.unpack_from(header)
        kind = name.rstrip(b"\0")
        if magic != MAGIC:
            raise self._error("does not begin like a file of dataforge")
        if version != VERSION:
            raise FormatError(
                f"{self.path.name} has version {version}, this dataforge reads {VERSION}",
                where=place_of(self.path),
                hint="install the dataforge-lm that wrote it, or a newer one",
            )
        self.header_sum = crc32c(header[:-4])
        if self.header_sum != int.from_bytes(header[-4:], "little"):
            raise self._mismatch("header", 0, HEADER_BYTES, int.from_bytes(header[-4:], "little"), self.header_sum)
        if kind != self.kind.name.encode():
            raise self._error(f"holds {kind.decode('ascii', 'replace')!r}, {self.kind.name!r} was expected")
        if size != self.size:
            raise self._error(f"has {self.size:,} bytes, its header says {size:,}")
        end, end_size, end_sum, trailer_sum = _TRAILER.unpack(trailer)
        found = crc32c(trailer[:-4])
        if trailer_sum != found:
            raise self._mismatch("trailer", self.size - TRAILER_BYTES, self.size, trailer_sum, found)
        if (end, end_size, end_sum) != (END_MAGIC, size, self.header_sum):
            raise self._error("has a trailer that belongs to another header")
        if header_bytes != HEADER_BYTES or self.page_bytes == 0 or self.page_bytes % ALIGNMENT:
            raise self._error(f"has a header of {header_bytes:,} bytes and pages of {self.page_bytes:,}")

    def _table(self, header: bytes) -> dict[str, Section]:
        if self._num_sections > MAX_SECTIONS:
            raise self._error(f"claims {self._num_sections} sections, at most {MAX_SECTIONS} fit")
        sections: dict[str, Section] = {}
        offset = HEADER_BYTES
        for i in range(self._num_sections):
            name, at, length, section_sum, item = _ENTRY.unpack_from(header, TABLE_AT + i * ENTRY_BYTES)
            section = Section(_text(name), at, length, section_sum, _text(item))
            sound = section.name and section.name not in sections and section.item in _ITEMS
            if not sound or at != offset or length > self.size or length % _ITEMS[section.item]:
                raise self._error(f"has a section table whose entry {i} ({section.name!r}) does not fit the file")
            sections[section.name] = section
            offset += padded(length)
        if offset + TRAILER_BYTES != self.size:
            raise self._error(f"has sections up to byte {offset:,} and a trailer from {self.size - TRAILER_BYTES:,}")
        if self.kind.paged:
            first = next(iter(sections), None)
            sums = sections.get(PAGE_SUMS)
            if first != self.kind.paged or sums is None or sums.item != "<u4":
                raise self._error(f"has no page checksums for {self.kind.paged}")
            if sums.length != 4 * self._pages(sections):
                raise self._error(f"has no page checksums for {self.kind.paged}")
        return sections

    def _pages(self, sections: dict[str, Section]) -> int:
        return -(-padded(sections[self.kind.paged or ""].length) // self.page_bytes)

    # -- contents

    @property
    def num_pages(self) -> int:
        """Pages of the paged section."""
        return self._pages(self.sections)

    def paged(self) -> np.ndarray:
        """The paged section as a read-only array, not yet checked: call `check_page` before a page is used."""
        return self._array(self.sections[self.kind.paged or ""])

    def check_page(self, page: int) -> None:
        """Compare one page of the paged section with its checksum."""
        section = self.sections[self.kind.paged or ""]
        begin = section.offset + page * self.page_bytes
        end = min(begin + self.page_bytes, section.offset + padded(section.length))
        told, found = int(self.section(PAGE_SUMS)[page]), crc32c(self._bytes[begin:end])
        if told != found:
            raise self._mismatch(f"page {page} of {section.name}", begin, end, told, found)

    def check_all_pages(self) -> None:
        """Compare every page of the paged section with its checksum."""
        section = self.sections[self.kind.paged or ""]
        body = self._bytes[section.offset : section.offset + padded(section.length)]
        wrong = np.flatnonzero(crc32c_pages(body, self.page_bytes) != self.section(PAGE_SUMS))
        if wrong.size:
            self.check_page(int(wrong[0]))

    def section(self, name: str) -> np.ndarray:
        """A section that is checked whole, as a read-only array; checked on the first call."""
        array = self._whole.get(name)
        if array is None:
            if name not in self.sections or name == self.kind.paged:
                raise self._error(f"has no section {name!r}")
            section = self.sections[name]
            end = section.offset + padded(section.length)
            found = crc32c(self._bytes[section.offset : end])
            if found != section.crc32c:
                raise self._mismatch(f"section {name}", section.offset, end, section.crc32c, found)
            array = self._whole[name] = self._array(section)
        return array

    def _array(self, section: Section) -> np.ndarray:
        return self._bytes[section.offset : section.offset + section.length].view(section.item)

    def fail(self, what: str) -> FormatError:
        """The error for contents that contradict themselves."""
        return self._error(what)

    def _error(self, what: str) -> FormatError:
        return _foreign(self.path, what, self.kind)

    def _mismatch(self, what: str, begin: int, end: int, told: int, found: int) -> ChecksumMismatch:
        place = f"{self.path.name}: {what} (bytes {begin:,} to {end:,})"
        return ChecksumMismatch(
            f"{place} has crc32c {found:08x}, it was written with {told:08x}",
            where=place_of(self.path),
            hint=_remake(self.path, self.kind),
        )


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode("ascii", "replace")


def _read_at(file: Any, offset: int, size: int) -> bytes:
    data = b""
    file.seek(offset)
    while len(data) < size and (piece := file.read(size - len(data))):
        data += piece
    return data.ljust(size, b"\0")  # a file cut meanwhile fails its checksum


def _map(handle: int, size: int) -> mmap.mmap:
    if sys.version_info >= (3, 13) and sys.platform != "win32":
        return mmap.mmap(handle, size, access=mmap.ACCESS_READ, trackfd=False)
    return mmap.mmap(handle, size, access=mmap.ACCESS_READ)
