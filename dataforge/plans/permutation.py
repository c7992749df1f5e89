"""A keyed permutation of 0..m-1 that is computed one place at a time: no table, no state.

A place is split into a low half of `p` bits and a high half with `b = ceil(m / 2^p)` values; six Feistel rounds mix a
hash of one half into the other (into the low half bit by bit, into the high half modulo b), so the network permutes
0..b*2^p - 1. A result at or past m goes through the network again until it falls below m (cycle walking); as
b*2^p - m < 2^p, about one place in sqrt(m) walks. Small domains need more rounds before every order is equally likely:
8 below m = 1024, 12 below 256 and 18 below 16, in further passes with other keys. Only uint64 arithmetic is used: the
same on any machine.

Source: the generalised Feistel and the cycle-walking ciphers of Black and Rogaway 2002, "Ciphers with arbitrary finite
domains". Departures: one half is a power of two, which saves the divisions; the round function is a multiply-shift
hash, not a cipher, because order must look random and need not resist an adversary.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
Network = Callable[[U64, U64, U64, U64, int], U64]

MAX_DOMAIN = 1 << 60
"""Largest m: the high half stays below 2^32, so that a product with a 32-bit hash fits 64 bits."""


def _word(value: int) -> U64:
    """A uint64 constant; an array without axes costs a ufunc a third less per call than a NumPy scalar."""
    return np.array(value, dtype=np.uint64)


_GOLDEN = _word(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, the increment of splitmix64
_MIX_1, _MIX_2 = _word(0xBF58476D1CE4E5B9), _word(0x94D049BB133111EB)  # the multipliers of splitmix64's finaliser
_ROUNDS = (  # one odd multiplier a round, alternately for the low and the high half
    _word(0xD6E8FEB86659FD93),
    _word(0xA0761D6478BD642F),
    _word(0xE7037ED1A0B428DB),
    _word(0x8EBC6AF09C88C6E3),
    _word(0x589965CC75374CC3),
    _word(0x1D8E4E27C47D124F),
)
_FOLD = _word(0xC2B2AE3D27D4EB4F)
_ONE, _27, _30, _31, _32, _64 = (_word(n) for n in (1, 27, 30, 31, 32, 64))
_MORE_PASSES = (
    (_word(1024), _word(0x9FB21C651E98DF25), 2),
    (_word(256), _word(0x632BE59BD9B4E019), 4),
    (_word(16), _word(0xD1342543DE82EF95), 6),
)
"""Domains below the first number pass once more, with the second added to their key, for so many rounds. The limits are
from chi-square tests over up to a million keys: whole orders (m <= 6), triples (m <= 32), pairs and steps of images."""


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
    image = _walk(_network, place, domain, bits, key, len(_ROUNDS))
    for limit, other_key, rounds in _more_passes(domain):
        image = _where_small(_network, limit, image, domain, bits, key, other_key, rounds)
    return image


def unpermute(image: U64, domain: U64, bits: U64, key: U64) -> U64:
    """The place whose image this is: the inverse of `permute`, same arguments."""
    place = image
    for limit, other_key, rounds in reversed(_more_passes(domain)):
        place = _where_small(_inverse, limit, place, domain, bits, key, other_key, rounds)
    return _walk(_inverse, place, domain, bits, key, len(_ROUNDS))


def _more_passes(domain: U64) -> list[tuple[U64, U64, int]]:
    """The further passes that any of these domains needs."""
    least = domain.min() if domain.size else _MORE_PASSES[0][0]
    return [one for one in _MORE_PASSES if least < one[0]]


def _where_small(
    network: Network, limit: U64, place: U64, domain: U64, bits: U64, key: U64, other_key: U64, rounds: int
) -> U64:
    """`place` after one more pass of those with a domain below `limit`."""
    small = domain < limit
    if small.all():
        return _walk(network, place, domain, bits, key + other_key, rounds)
    if small.any():
        few = small.nonzero()[0]
        place = place.copy()
        place[few] = _walk(network, place[few], domain[few], bits[few], key[few] + other_key, rounds)
    return place


def _walk(network: Network, place: U64, domain: U64, bits: U64, key: U64, rounds: int) -> U64:
    image = network(place, domain, bits, key, rounds)
    outside = (image >= domain).nonzero()[0]
    while outside.size:
        if domain.ndim:
            again = network(image[outside], domain[outside], bits[outside], key[outside], rounds)
            image[outside] = again
            outside = outside[again >= domain[outside]]
        else:
            again = network(image[outside], domain, bits, key[outside], rounds)
            image[outside] = again
            outside = outside[again >= domain]
    return image


def _network(place: U64, domain: U64, bits: U64, key: U64, rounds: int) -> U64:
    top, high_size, low, high, z, t = _halves(place, domain, bits)
    for i in range(0, rounds, 2):
        low ^= _hash(high, key, _ROUNDS[i], top, z, t)
        high += _hash_below(high_size, low, key, _ROUNDS[i + 1], z, t)
        # Both terms are below high_size: if the sum is not, subtracting makes it smaller; else it wraps to a huge one.
        np.minimum(high, np.subtract(high, high_size, out=t), out=high)
    high <<= bits
    high |= low
    return high


def _inverse(image: U64, domain: U64, bits: U64, key: U64, rounds: int) -> U64:
    top, high_size, low, high, z, t = _halves(image, domain, bits)
    for i in range(rounds - 2, -1, -2):
        high -= _hash_below(high_size, low, key, _ROUNDS[i + 1], z, t)
        np.minimum(high, np.add(high, high_size, out=t), out=high)  # a negative difference has wrapped to a huge number
        low ^= _hash(high, key, _ROUNDS[i], top, z, t)
    high <<= bits
    high |= low
    return high


def _halves(place: U64, domain: U64, bits: U64) -> tuple[U64, U64, U64, U64, U64, U64]:
    """The shift that leaves a word's top `bits`, the high half's size, both halves of each place, and scratch."""
    mask = (_ONE << bits) - _ONE
    high_size = np.asarray((domain + mask) >> bits)
    return np.asarray(_64 - bits), high_size, place & mask, place >> bits, np.empty_like(place), np.empty_like(place)


def _hash(half: U64, key: U64, multiplier: U64, top: U64, z: U64, t: U64) -> U64:
    """The top 64 - `top` bits of a hash of one half and the key, in z (none for a shift of 64: NumPy gives 0)."""
    np.bitwise_xor(half, key, out=z)
    z *= multiplier
    z ^= np.right_shift(z, _32, out=t)
    z *= _FOLD
    z >>= top
    return z


def _hash_below(limit: U64, half: U64, key: U64, multiplier: U64, z: U64, t: U64) -> U64:
    """A hash in 0..limit-1, in z: the 32 bits as a fraction of 2^32, times the limit."""
    _hash(half, key, multiplier, _32, z, t)
    z *= limit
    z >>= _32
    return z
