"""A keyed permutation of 0..m-1 that is computed one place at a time: no table, no state.

A place is split into a low half of `p` bits and a high half with `b = ceil(m / 2^p)` values; six Feistel rounds mix a
hash of one half into the other (into the low half bit by bit, into the high half modulo b), so the network permutes
0..b*2^p - 1. A result at or past m goes through the network again until it falls below m (cycle walking); as
b*2^p - m < 2^p, about one place in sqrt(m) walks. Small domains need more rounds before every order is equally likely:
8 below m = 1024, 12 below 256 and 18 below 16. Only uint64 arithmetic is used: the same on any machine.

Source: the generalised Feistel and the cycle-walking ciphers of Black and Rogaway 2002, "Ciphers with arbitrary finite
domains". Departures: one half is a power of two, which saves the divisions; the round function is a multiply-shift
hash, not a cipher, because order must look random and need not resist an adversary.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
Rounds = Callable[[U64, U64, U64, U64, U64, int, int], None]

MAX_DOMAIN = 1 << 60
"""Largest m: the high half stays below 2^32, so that a product with a 32-bit hash fits 64 bits."""


def _word(value: int) -> U64:
    """A uint64 constant; an array without axes costs a ufunc a third less per call than a NumPy scalar."""
    return np.array(value, dtype=np.uint64)


_GOLDEN = _word(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, the increment of splitmix64
_MIX_1, _MIX_2 = _word(0xBF58476D1CE4E5B9), _word(0x94D049BB133111EB)  # the multipliers of splitmix64's finaliser
_ROUNDS = tuple(_word(multiplier) for multiplier in (
    0xE220A8397B1DCDAF, 0x6E789E6AA1B965F5, 0x06C45D188009454F,
    0xF88BB8A8724C81ED, 0x1B39896A51A8749B, 0x53CB9F0C747EA2EB,
    0x2C829ABE1F4532E1, 0xC584133AC916AB3D, 0x3EE5789041C98AC3,
    0xF3B8488C368CB0A7, 0x657EECDD3CB13D09, 0xC2D326E0055BDEF7,
    0x8621A03FE0BBDB7B, 0x8E1F7555983AA92F, 0xB54E0F1600CC4D19,
    0x84BB3F97971D80AB, 0x7D29825C75521255, 0xC3CF17102B7F7F87,
))  # fmt: skip
"""One odd multiplier a round: splitmix64 of 1 to 18, the lowest bit set."""
_FOLD = _word(0xC2B2AE3D27D4EB4F)
_ALL, _MORE = 6, ((1024, 8), (256, 12), (16, 18))
"""Rounds of every domain, and of those below a limit. From chi-square tests over up to a million keys: whole orders
(m <= 6), triples (m <= 32), pairs and steps of images."""
_ONE, _27, _30, _31, _32, _64 = (_word(n) for n in (1, 27, 30, 31, 32, 64))


def low_bits(domain: NDArray[np.int64]) -> U64:
    """Bits of the low half for each domain size m: half of m's bit length, rounded down, at least 1 (0 for m = 1).

    >>> low_bits(np.array([1, 2, 3, 7, 8, 64, 1 << 40]))
    array([ 0,  1,  1,  1,  2,  3, 20], dtype=uint64)
    """
    m = np.asarray(domain, dtype=np.int64)
    # frexp's exponent is the bit length of an exact float64; 30 bits at a time nothing is rounded.
    length = np.where(m >> 30 > 0, np.frexp((m >> 30).astype(np.float64))[1] + 30, np.frexp((m % (1 << 30)) * 1.0)[1])
    return np.where(m > 1, np.maximum(length // 2, 1), 0).astype(np.uint64)


def mix(counter: U64) -> U64:
    """A 64-bit hash of each counter: splitmix64 (Steele et al. 2014), a bijection of 64-bit words."""
    z = counter * _GOLDEN
    t = z >> _30
    z ^= t
    z *= _MIX_1
    z ^= np.right_shift(z, _27, out=t)
    z *= _MIX_2
    z ^= np.right_shift(z, _31, out=t)
    return z


def permute(place: U64, domain: U64, bits: U64, key: U64) -> U64:
    """The image of each place under the permutation of 0..domain-1 that its key names.

    Args:
        place: uint64, each below its domain, shape (N,).
        domain: m for each place, 1..MAX_DOMAIN, shape (N,), or one for all, shape ().
        bits: `low_bits(m)`, of the same shape (kept beside m by the caller, who asks millions of times).
        key: 64 bits for each place; equal (domain, key) is one permutation.
    Returns:
        uint64, shape (N,).
    """
    return _walk(_forward, place, domain, bits, key)


def unpermute(image: U64, domain: U64, bits: U64, key: U64) -> U64:
    """The place whose image this is: the inverse of `permute`, same arguments."""
    return _walk(_backward, image, domain, bits, key)


def _walk(rounds: Rounds, place: U64, domain: U64, bits: U64, key: U64) -> U64:
    image = _network(rounds, place, domain, bits, key)
    outside = (image >= domain).nonzero()[0]
    while outside.size:
        if domain.ndim:
            again = _network(rounds, image[outside], domain[outside], bits[outside], key[outside])
            image[outside] = again
            outside = outside[again >= domain[outside]]
        else:
            again = _network(rounds, image[outside], domain, bits, key[outside])
            image[outside] = again
            outside = outside[again >= domain]
    return image


def _network(rounds: Rounds, place: U64, domain: U64, bits: U64, key: U64) -> U64:
    """One way through the network: the rounds of all domains, then those of small ones (backwards: before them)."""
    mask = (_ONE << bits) - _ONE
    high_size = np.asarray((domain + mask) >> bits)
    low, high, top = place & mask, place >> bits, np.asarray(_64 - bits)
    least = int(domain.min()) if domain.size else 0
    begin, tiers = 0, []
    for limit, end in ((MAX_DOMAIN + 1, _ALL), *_MORE):
        if least < limit:
            tiers.append((limit, begin, end))
        begin = end
    for limit, begin, end in tiers if rounds is _forward else reversed(tiers):
        small = None if limit > MAX_DOMAIN else domain < limit
        if small is None or small.all():
            rounds(low, high, top, high_size, key, begin, end)
        else:
            few = small.nonzero()[0]
            few_low, few_high = low[few], high[few]
            rounds(few_low, few_high, top[few], high_size[few], key[few], begin, end)
            low[few], high[few] = few_low, few_high
    high <<= bits
    high |= low
    return high


def _forward(low: U64, high: U64, top: U64, high_size: U64, key: U64, begin: int, end: int) -> None:
    """Rounds `begin` to `end` - 1 on both halves, in place."""
    z, t = np.empty_like(low), np.empty_like(low)
    for i in range(begin, end, 2):
        low ^= _hash(high, key, _ROUNDS[i], top, z, t)
        high += _hash_below(high_size, low, key, _ROUNDS[i + 1], z, t)
        # Both terms are below high_size: if the sum is not, subtracting makes it smaller; else it wraps to a huge one.
        np.minimum(high, np.subtract(high, high_size, out=t), out=high)


def _backward(low: U64, high: U64, top: U64, high_size: U64, key: U64, begin: int, end: int) -> None:
    """The inverse of `_forward`."""
    z, t = np.empty_like(low), np.empty_like(low)
    for i in range(end - 2, begin - 2, -2):
        high -= _hash_below(high_size, low, key, _ROUNDS[i + 1], z, t)
        np.minimum(high, np.add(high, high_size, out=t), out=high)  # a negative difference has wrapped to a huge number
        low ^= _hash(high, key, _ROUNDS[i], top, z, t)


def _hash(half: U64, key: U64, multiplier: U64, top: U64, z: U64, t: U64) -> U64:
    """The top 64 - `top` bits of a hash of one half and the key, in z (none for a shift of 64: NumPy gives 0)."""
    np.bitwise_xor(half, key, out=z)
    z *= multiplier
    z ^= np.right_shift(z, _32, out=t)
    z *= _FOLD
    z >>= top
    return z


def _hash_below(limit: U64, half: U64, key: U64, multiplier: U64, z: U64, t: U64) -> U64:
    """A hash in 0..limit-1, in z: its top 32 bits as a fraction of 2^32, times the limit."""
    _hash(half, key, multiplier, _32, z, t)
    z *= limit
    z >>= _32
    return z
