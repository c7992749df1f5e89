import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataforge.trainer.schedule import learning_rate


def rates(num_steps, warmup, final):
    told = {"peak": 2.0, "num_steps": num_steps, "warmup_steps": warmup, "final_ratio": final}
    return [learning_rate(step, **told) for step in range(1, num_steps + 1)]


@given(st.integers(1, 60), st.integers(0, 80), st.floats(0, 1))
def test_rates_rise_to_the_peak_and_fall_to_the_end(num_steps, warmup, final):
    found = rates(num_steps, warmup, final)
    rising, falling = found[:warmup], found[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert all(0 <= rate <= 2.0 + 1e-9 for rate in found)
    if warmup and num_steps >= warmup:
        assert found[warmup - 1] == pytest.approx(2.0)
    if num_steps > warmup:
        assert found[-1] == pytest.approx(2.0 * final, abs=1e-9)


def test_without_warm_up_the_first_step_is_near_the_peak():
    assert rates(100, 0, 0.0)[0] == pytest.approx(2.0, rel=1e-3)
