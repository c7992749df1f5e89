"""Frames: every flipped bit found, every size checked before memory is taken for it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataforge.errors import ChecksumMismatch, CorruptData, FormatError
from dataforge.rows import Rows
from dataforge.shards.crc32c import crc32c
from dataforge.streams import frames
from dataforge.streams.frames import FrameType, Header, check_body, check_data, check_segments
from dataforge.streams.windows import Window, WindowRequest


@given(
    kind=st.sampled_from(FrameType),
    small=st.lists(st.integers(0, 2**32 - 1), min_size=7, max_size=7),
    large=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=2),
)
def test_a_header_comes_back_as_it_was_sent(kind, small, large):
    names = ("num_rows", "row_length", "payload_bytes", "table_bytes", "body_crc32c", "sequence")
    told = dict(zip(names, small[1:], strict=True))
    header = Header(kind, small[0] % 2**16, first_row=large[0], rows_digest=large[1], **told)
    assert len(header.pack()) == frames.HEADER_BYTES
    assert Header.unpack(header.pack(), "here") == header


def test_every_single_flipped_bit_of_a_frame_is_found(artifact):
    """Exhaustive over the header, the segment table and the payload of a DATA frame, and over an END frame."""
    window = Window(Rows(artifact), WindowRequest(cursor=3, steps=1, global_batch=2))
    _, data, end = (bytes(frame) for frame in window.frames())
    for frame in (data, end):
        flipped = bytearray(frame)
        for bit in range(8 * len(frame)):
            flipped[bit // 8] ^= 1 << bit % 8
            try:
                header = Header.unpack(flipped[:64], "here")
                check_body(header, flipped[64:], "here")
            except CorruptData:
                pass
            else:
                pytest.fail(f"bit {bit} was flipped and not found")
            flipped[bit // 8] ^= 1 << bit % 8
        assert bytes(flipped) == frame


def _sealed(data: bytes) -> bytes:
    return data[:60] + crc32c(data[:60]).to_bytes(4, "little")


SOUND = Header(FrameType.DATA, 2, 40, 3, 16, 3 * 17 * 2, 5 * 32, 0, 1, 7)
EDGES = {2: [0, 1, 2, 3, 4, 0x7FFF, 0xFFFF], 4: [0, 1, 2, 31, 33, 101, 103, 2**31 - 1, 2**31, 2**32 - 1]}


@pytest.mark.parametrize(("at", "size"), [(4, 1), (5, 1), (6, 2), (16, 4), (20, 4), (24, 4), (28, 4), (48, 4), (56, 4)])
def test_forged_fields_with_a_right_checksum_are_refused_before_memory_is_taken(at, size):
    sound = SOUND.pack()

    def read(data):
        header = Header.unpack(data, "here")
        if header.type is not FrameType.DATA:
            raise FormatError("another type than is due")
        check_data(header, row_length=16, item_bytes=2, max_rows=3, where="here")

    read(sound)
    for value in EDGES.get(size, [0, 2, 3, 6, 127, 128, 255]):
        data = sound[:at] + value.to_bytes(size, "little") + sound[at + size :]
        rows = int.from_bytes(data[16:20], "little")
        table = int.from_bytes(data[28:32], "little")
        if data == sound or (
            data[:28] + data[32:] == sound[:28] + sound[32:] and table % 32 == 0 and rows <= table // 32 <= 51
        ):
            continue
        with pytest.raises(CorruptData):
            read(_sealed(data))


@given(data=st.binary(min_size=64, max_size=64))
def test_noise_is_no_header(data):
    for noise in (data, _sealed(data), _sealed(b"DFFR" + data[4:])):
        try:
            header = Header.unpack(noise, "here")
            check_data(header, row_length=16, item_bytes=2, max_rows=3, where="here")
        except CorruptData:
            continue
        assert (header.num_rows, header.payload_bytes) in [(n, n * 34) for n in (1, 2, 3)]


def test_a_foreign_stream_a_later_version_and_reserved_bytes_are_told_apart():
    for data, match in (
        (b"HTTP" + bytes(60), "something else than a frame"),
        (SOUND.pack()[:4] + b"\2" + SOUND.pack()[5:], "version 2"),
        (SOUND.pack()[:5] + b"\7" + SOUND.pack()[6:], "type 7"),
        (SOUND.pack()[:50] + b"\1" + SOUND.pack()[51:], "reserved"),
    ):
        with pytest.raises(FormatError, match=match):
            Header.unpack(_sealed(data), "here")
    with pytest.raises(ChecksumMismatch, match="header"):
        Header.unpack(SOUND.pack()[:-1] + b"\0", "here")
    with pytest.raises(ChecksumMismatch, match=r"frame 1 \(DATA, from row 40"):
        check_body(replace(SOUND, body_crc32c=5), b"abc", "here")


ROWS = np.array([4, 5, 9])
TABLE = np.array([[4, 7, 0, 10], [4, 8, 3, 7], [5, 8, 9, 17], [9, 1, 0, 1], [9, 2, 0, 16]])


def test_a_segment_table_must_tell_of_the_rows_asked_for():
    check_segments(TABLE, ROWS, 16, "here")
    wrong = {
        "too few": TABLE[:-1],
        "too many": np.vstack([TABLE, [[9, 2, 0, 17]]]),
        "none": TABLE[:0],
    }
    for name, (row, column, value) in {
        "another row": (2, 0, 6),
        "negative row": (0, 0, -4),
        "negative document": (1, 1, -1),
        "negative offset": (1, 2, -1),
        "empty segment": (3, 3, 0),
        "negative length": (3, 3, -1),
        "short": (2, 3, 16),
        "long": (2, 3, 18),
        "overflow": (2, 3, 2**63 - 1),
    }.items():
        wrong[name] = TABLE.copy()
        wrong[name][row, column] = value
    moved = TABLE.copy()
    moved[0, 3], moved[1, 3] = 11, 6
    check_segments(moved, ROWS, 16, "here")  # the border inside a row is free
    moved[1, 3], moved[2, 3] = 7, 16
    wrong["a border between rows"] = moved
    for name, table in wrong.items():
        try:
            check_segments(table, ROWS, 16, "here")
        except FormatError:
            continue
        pytest.fail(f"{name}: not noticed")
