"""One seed becomes named, independent generators; the same on every machine and every Python."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """A 64-bit seed for the stream called `names` under `seed`.

    blake2b over the decimal seed and the names, each with its length: no two name lists run together, and nothing
    depends on Python's randomised `hash`.

    >>> derive(7, "kmeans") == derive(7, "kmeans"), derive(7, "a", "b") == derive(7, "ab")
    (True, False)
    """
    digest = hashlib.blake2b(digest_size=8)
    for item in (str(int(seed)), *map(str, names)):
        data = item.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "little")


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator (PCG64) for the stream called `names` under `seed`."""
    return np.random.Generator(np.random.PCG64(derive(seed, *names)))
