import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataforge.moe.counter_random import counter_uniform


def splitmix64(key: int, count: int) -> np.ndarray:
    """The published generator, in unsigned arithmetic."""
    out = []
    state = key % 2**64
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        out.append(z ^ (z >> 31))
    return np.array(out, dtype=np.uint64)


@given(key=st.integers(0, 2**64 - 1))
def test_draws_are_the_top_bits_of_splitmix64(key):
    expected = (splitmix64(key, 21) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    assert np.array_equal(counter_uniform((3, 7), key=key).numpy().reshape(-1), expected)


def test_draws_are_uniform_and_uncorrelated():
    x = counter_uniform((200_000,), key=12345).double()
    assert x.min() >= 0
    assert x.max() < 1
    assert abs(x.mean() - 0.5) < 0.003
    assert abs(x.var() - 1 / 12) < 0.001
    assert abs(torch.corrcoef(torch.stack([x[:-1], x[1:]]))[0, 1]) < 0.01


def test_two_keys_share_nothing():
    assert not torch.equal(counter_uniform((64,), key=1), counter_uniform((64,), key=2))


def test_global_randomness_is_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    counter_uniform((5, 5), key=3)
    assert torch.equal(state, torch.get_rng_state())
