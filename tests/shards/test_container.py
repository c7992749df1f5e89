"""Sealed files: no flipped bit, no torn end and no foreign file goes unseen."""

import mmap
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.errors import CorruptData, FormatError
from dataforge.shards.container import HEADER_BYTES, TABLE_AT, Kind, SealedFile, SealedWriter, padded
from dataforge.shards.crc32c import crc32c
from dataforge.shards.format import SHARD, ShardFields

KIND = Kind("testing", struct.Struct("<QQ"), "tokenize", paged="ITEMS")


def _write(path, items=2100, page_bytes=4096):
    writer = SealedWriter(path, KIND, page_bytes=page_bytes, item="<u4")
    for first in range(0, items, 700):
        writer.append(np.arange(first, min(items, first + 700), dtype="<u4"))
    writer.finish(KIND.fields.pack(items, 7), [("SMALL", "<i8", np.arange(5)), ("NONE", "u1", np.zeros(0))])
    return path


def _read_all(path, kind=KIND):
    file = SealedFile(path, kind)
    file.check_all_pages()
    for name in file.sections:
        if name != kind.paged:
            file.section(name)
    return file


@pytest.mark.parametrize("items", [0, 1, 1023, 1024, 1025, 2048, 2100])
def test_what_was_written_is_read_back_and_checked(tmp_path, items):
    file = _read_all(_write(tmp_path / "a", items))
    assert file.paged().tolist() == list(range(items))
    assert file.section("SMALL").tolist() == [0, 1, 2, 3, 4]
    assert KIND.fields.unpack(file.fields) == (items, 7)
    assert not file.paged().flags.writeable


def test_every_single_flipped_bit_of_a_small_file_is_found(tmp_path):
    """Exhaustive. Flips in the header and trailer are found on opening, the others by the check that covers them."""
    path = _write(tmp_path / "a", items=1100)
    size = path.stat().st_size
    whole = SealedFile(path, KIND)
    covers = {}  # byte -> the check that covers it
    for section in whole.sections.values():
        for page in range(-(-section.length // 4096)):
            start = section.offset + 4096 * page
            covers[start] = (section.name, page)
    with open(path, "r+b") as handle, mmap.mmap(handle.fileno(), 0) as bytes_:
        for at in range(size):
            check = covers.get(at // 4096 * 4096) if at < size - 64 else None
            for bit in range(8):
                bytes_[at] ^= 1 << bit
                with pytest.raises(CorruptData) if bit == 0 else _Raises():  # pytest.raises is slow
                    if check is None:
                        SealedFile(path, KIND)
                    elif check[0] == "ITEMS":
                        whole.check_page(check[1])
                    else:
                        whole._whole.clear()
                        whole.section(check[0])
                bytes_[at] ^= 1 << bit
    whole._whole.clear()
    _read_all(path)


class _Raises:
    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        assert kind is not None, "a flipped bit was not found"
        return issubclass(kind, CorruptData)


def test_every_truncation_and_extension_is_refused_before_mapping(tmp_path, monkeypatch):
    path = _write(tmp_path / "a", items=1100)
    data = path.read_bytes()
    monkeypatch.setattr("dataforge.shards.container._map", lambda *_: pytest.fail("it was mapped"))
    borders = {0, 1, 63, 64, HEADER_BYTES, len(data) - 64, *range(0, len(data), 4096)}
    lengths = {length + off for length in borders for off in (-1, 0, 1)} & set(range(len(data)))
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        with pytest.raises(CorruptData):
            SealedFile(path, KIND)
    for tail in (b"\0", bytes(64), bytes(4096), data[-64:], data):
        path.write_bytes(data + tail)
        with pytest.raises(CorruptData):
            SealedFile(path, KIND)


def test_foreign_files_other_kinds_and_later_versions_are_told_apart(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"PAR1" + bytes(9000))
    with pytest.raises(FormatError, match="does not begin like a file of dataforge"):
        SealedFile(path, KIND)
    _write(path)
    with pytest.raises(FormatError, match="holds 'testing', 'tokens' was expected"):
        SealedFile(path, SHARD)
    data = bytearray(path.read_bytes())
    data[16] = 2
    path.write_bytes(data)
    with pytest.raises(FormatError, match="version 2"):
        SealedFile(path, KIND)


def _resealed(data: bytearray) -> bytearray:
    """Make header and trailer checksums right again: a forged file, not a damaged one."""
    head = crc32c(bytes(data[: HEADER_BYTES - 4]))
    data[HEADER_BYTES - 4 : HEADER_BYTES] = head.to_bytes(4, "little")
    data[-48:-44] = head.to_bytes(4, "little")
    data[-4:] = crc32c(bytes(data[-64:-4])).to_bytes(4, "little")
    return data


EDGES = [0, 1, 2, 3, 63, 64, 4095, 4096, 4097, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1]
FIELDS = [(20, 4), (24, 8), (32, 4), (36, 4)]
ENTRY = [(TABLE_AT + 64 * entry + at, size) for entry in range(3) for at, size in ((16, 8), (24, 8), (36, 4))]


@pytest.mark.parametrize(("at", "size"), FIELDS + ENTRY)
def test_forged_headers_with_right_checksums_are_refused_without_harm(tmp_path, at, size):
    path = _write(tmp_path / "a", items=1100)
    sound = bytearray(path.read_bytes())
    for value in EDGES:
        if value >= 2 ** (8 * size) or value.to_bytes(size, "little") == sound[at : at + size]:
            continue
        told = int.from_bytes(sound[at : at + size], "little")
        if (at - TABLE_AT) % 64 == 24 and padded(value) == padded(told) and value % 8 == 0:
            continue  # as good a length as the true one; what a section must hold is its kind's to know
        data = bytearray(sound)
        data[at : at + size] = value.to_bytes(size, "little")
        path.write_bytes(_resealed(data))
        with pytest.raises(CorruptData):
            _read_all(path)


@given(at=st.integers(0, 1023), value=st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_forged_header_bytes_never_do_worse_than_a_stated_error(tmp_path_factory, at, value):
    path = tmp_path_factory.getbasetemp() / "forged.tok"
    if not path.exists():
        _write(path, items=1100)
    sound = path.read_bytes()
    data = bytearray(sound)
    data[at] = value
    try:
        path.write_bytes(_resealed(data))
        _read_all(path)
    except CorruptData:
        pass
    finally:
        path.write_bytes(sound)


def test_shard_fields_that_contradict_the_sections_are_refused(make_shards):
    made = make_shards(parts=1)
    path = made.paths[0]
    sound = bytearray(path.read_bytes())
    fields = ShardFields.of(SealedFile(path, SHARD))
    for at, value in ((64, fields.num_tokens + 1), (72, fields.num_documents + 1), (104, 70_000), (104, 0), (108, 300)):
        data = bytearray(sound)
        data[at : at + 4] = int(value).to_bytes(4, "little")
        path.write_bytes(_resealed(data))
        with pytest.raises(FormatError):
            ShardFields.of(SealedFile(path, SHARD))
