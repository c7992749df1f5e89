"""CRC-32C (Castagnoli) of buffers, in pages and joined: the checksum of shards, row indexes and frames.

`dataforge._native` does the work where it is built (about 28 GB/s). Without it NumPy does: the buffer is cut into equal
lanes that advance together, four bytes a step by two look-ups, and the lanes are joined by "append n zero bytes", which
is linear over GF(2) (about 0.5 GB/s). The results are equal; nothing is ever left unchecked for want of the extension.
"""

from __future__ import annotations

import importlib
from functools import cache, lru_cache
from typing import Any

import numpy as np

_POLYNOMIAL = 0x82F63B78
_LANES_FROM_BYTES = 1024
_LANE_BYTES = 256

native: Any
try:
    native = importlib.import_module("dataforge._native")
except ImportError:
    native = None


def crc32c(data: Any, value: int = 0) -> int:
    """The CRC-32C of a contiguous buffer, going on from `value`, the checksum of the bytes before it.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    >>> crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")
    True
    """
    view = as_bytes(data)
    return native.crc32c(view, value) if native is not None else _crc32c_numpy(view, value)


def crc32c_pages(data: Any, page_bytes: int) -> np.ndarray:
    """The CRC-32C of every page of a buffer, uint32; the last page may be short.

    >>> crc32c_pages(b"123456789" * 3, 9).tolist() == [0xE3069283] * 3
    True
    """
    view = as_bytes(data)
    sums = np.empty(-(-view.size // page_bytes), np.uint32)
    if native is not None:
        native.crc32c_pages(view, page_bytes, sums)
    else:
        for i in range(sums.size):
            sums[i] = _crc32c_numpy(view[i * page_bytes : (i + 1) * page_bytes], 0)
    return sums


def joined(first: int, second: int, second_bytes: int) -> int:
    """The checksum of A followed by B, from the checksums of both and the length of B in bytes.

    >>> joined(crc32c(b"12345"), crc32c(b"6789"), 4) == crc32c(b"123456789")
    True
    """
    return int(_append_zeros(np.array([first], np.uint32), second_bytes)[0]) ^ second


def as_bytes(data: Any) -> np.ndarray:
    """A flat uint8 view of a contiguous buffer; nothing is copied."""
    if isinstance(data, np.ndarray):
        return data.reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


# -- the NumPy path


@cache
def _byte_table() -> np.ndarray:
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table.astype(np.uint32)


@cache
def _byte_list() -> list[int]:
    return _byte_table().tolist()


@cache
def _halfword_tables() -> tuple[np.ndarray, np.ndarray]:
    """What the low and the high half of the register become after four bytes."""
    halves = np.arange(1 << 16, dtype=np.uint32)
    table, out = _byte_table(), []
    register: np.ndarray
    for register in (halves, halves << np.uint32(16)):
        for _ in range(4):
            register = (table[register & 0xFF] ^ (register >> np.uint32(8))).astype(np.uint32)
        out.append(register)
    return out[0], out[1]


@lru_cache(maxsize=256)
def _zeros_tables(num_bytes: int) -> np.ndarray:
    """Four tables of 256: what each byte of the register becomes when `num_bytes` zero bytes follow."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    power = _byte_table()[bits & 0xFF] ^ (bits >> np.uint32(8))  # columns of "one zero byte"
    matrix, left = bits.copy(), num_bytes
    while left:
        if left & 1:
            matrix = _times(power, matrix)
        power = _times(power, power)
        left >>= 1
    register = np.arange(256, dtype=np.uint32)
    return np.stack([_times(matrix, register << np.uint32(8 * k)) for k in range(4)])


def _times(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    total = np.zeros_like(vectors)
    for i in range(32):
        total ^= np.where((vectors >> np.uint32(i)) & 1, matrix[i], np.uint32(0)).astype(np.uint32)
    return total


def _append_zeros(register: np.ndarray, num_bytes: int) -> np.ndarray:
    low, second, third, high = _zeros_tables(num_bytes)
    eight = np.uint32(8)
    return (
        low[register & 0xFF]
        ^ second[(register >> eight) & 0xFF]
        ^ third[(register >> np.uint32(16)) & 0xFF]
        ^ high[register >> np.uint32(24)]
    )


def _crc32c_numpy(view: np.ndarray, value: int) -> int:
    register = value ^ 0xFFFFFFFF
    if view.size >= _LANES_FROM_BYTES:
        lanes = 1 << ((view.size // _LANE_BYTES).bit_length() - 1)
        steps = view.size // (4 * lanes)
        register = _lanes(view[: 4 * lanes * steps], lanes, steps, register)
        view = view[4 * lanes * steps :]
    table = _byte_list()
    for byte in view.tolist():
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def _lanes(view: np.ndarray, lanes: int, steps: int, register: int) -> int:
    """The register after `lanes * steps` words of four bytes; lane i holds the i-th stretch of `steps` words."""
    words = np.frombuffer(view, "<u4").reshape(lanes, steps).T.astype(np.uint32, order="C")
    low, high = _halfword_tables()
    state = np.zeros(lanes, np.uint32)
    state[0] = register
    for step in range(steps):
        state ^= words[step]
        state = low[state & np.uint32(0xFFFF)] ^ high[state >> np.uint32(16)]
    stretch = 4 * steps
    while state.size > 1:
        state = _append_zeros(state[0::2], stretch) ^ state[1::2]
        stretch *= 2
    return int(state[0])
