"""Random numbers that are a pure function of a key and a place: no state, the same on every device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_STEP = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def counter_uniform(shape: Sequence[int], *, key: int, device: torch.device | str = "cpu") -> Tensor:
    """Uniform float32 numbers in [0, 1): element i is the top 24 bits of SplitMix64's output number i under `key`.

    Recomputed activations, a resumed run and another device see the same draws, because nothing is drawn from a
    generator whose state somebody else could have moved. `key` is taken modulo 2**64; make it with `seeds.derive`.

    >>> counter_uniform((3,), key=7).tolist() == counter_uniform((5,), key=7)[:3].tolist()
    True
    """
    # int64 products wrap modulo 2**64; shifts are arithmetic, so the sign bits they bring in are masked off.
    x = torch.arange(1, math.prod(shape) + 1, dtype=torch.int64, device=device)
    x.mul_(_signed(_STEP)).add_(_signed(key))
    x.bitwise_xor_((x >> 30).bitwise_and_((1 << 34) - 1)).mul_(_signed(_MIX_1))
    x.bitwise_xor_((x >> 27).bitwise_and_((1 << 37) - 1)).mul_(_signed(_MIX_2))
    x.bitwise_xor_((x >> 31).bitwise_and_((1 << 33) - 1))
    return (x >> 40).bitwise_and_((1 << 24) - 1).to(torch.float32).mul_(2.0**-24).reshape(tuple(shape))


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
