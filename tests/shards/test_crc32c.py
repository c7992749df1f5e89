"""CRC-32C: three paths, one answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.shards import crc32c as subject
from dataforge.shards.crc32c import crc32c, crc32c_pages, joined

# RFC 3720, appendix B.4, and the check value of the polynomial.
KNOWN = [
    (b"", 0x00000000),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
]
needs_native = pytest.mark.skipif(subject.native is None, reason="dataforge._native is not built here")


@pytest.mark.parametrize(("data", "expected"), KNOWN)
def test_known_answers_come_out_of_every_path(data, expected, monkeypatch):
    assert crc32c(data) == expected
    if subject.native is not None:
        assert subject.native.crc32c_table(np.frombuffer(data, np.uint8)) == expected
    monkeypatch.setattr(subject, "native", None)
    assert crc32c(data) == expected


def _random(size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)


@needs_native
@pytest.mark.parametrize("size", [*range(70), 255, 256, 767, 768, 769, 1023, 1024, 24_575, 24_576, 24_577, 100_003])
def test_hardware_and_tables_and_numpy_agree_on_every_length_and_alignment(size):
    data = _random(size + 8)
    for offset in (0, 1, 3, 7):
        view = data[offset : offset + size]
        expected = subject.native.crc32c_table(view, 5)
        assert subject.native.crc32c(view, 5) == expected
        assert subject._crc32c_numpy(view, 5) == expected


@given(data=st.binary(max_size=3000), cut=st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_pieces_give_the_checksum_of_the_whole(data, cut):
    head, tail = data[:cut], data[cut:]
    assert crc32c(tail, crc32c(head)) == crc32c(data)
    assert joined(crc32c(head), crc32c(tail), len(tail)) == crc32c(data)


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_native), False])
def test_pages_are_checked_one_by_one_and_the_last_may_be_short(native, monkeypatch):
    if not native:
        monkeypatch.setattr(subject, "native", None)
    data = _random(10_000)
    expected = [crc32c(data[i : i + 4096]) for i in range(0, 10_000, 4096)]
    assert crc32c_pages(data, 4096).tolist() == expected
    assert crc32c_pages(b"", 4096).size == 0


def test_every_flipped_bit_of_a_page_changes_its_checksum():
    data = bytearray(_random(300).tobytes())
    expected = crc32c(data)
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        assert crc32c(data) != expected
        data[bit // 8] ^= 1 << bit % 8
