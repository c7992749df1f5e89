"""Expert load against the numbers taken step by step."""

from __future__ import annotations

from typing import Any

import numpy as np

from dataforge.analysis.experts import MOST_STRETCHES, expert_load


def rows_of(tokens: np.ndarray, dropped: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"step": step + 1, "tokens_per_expert": tokens[step].tolist(), "dropped": dropped[step].tolist()}
        for step in range(len(tokens))
    ]


def test_load_is_over_the_mean_and_steps_add_up_in_stretches() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 50, (301, 3, 4))
    dropped = rng.integers(0, 5, (301, 3))
    load = expert_load(rows_of(tokens, dropped))
    assert load is not None
    assert load.share_BNE.shape == (MOST_STRETCHES, 3, 4)
    np.testing.assert_allclose(load.share_BNE.mean(axis=2), 1.0)
    assert load.steps_B[-1] == 301
    first = tokens[: load.steps_B[0]].sum(axis=0)
    np.testing.assert_allclose(load.share_BNE[0], first / first.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(load.dropped_share_N, dropped.sum(axis=0) / tokens.sum(axis=(0, 2)))
    for step in (0, 17, 300):
        for layer in range(3):
            told = tokens[step, layer]
            assert np.isclose(load.step_violation_SN[step, layer], told.max() / told.mean() - 1)


def test_a_layer_that_routed_nothing_is_not_a_number_and_no_experts_are_none() -> None:
    tokens = np.ones((2, 2, 3), np.int64)
    tokens[:, 1] = 0
    load = expert_load(rows_of(tokens, np.zeros((2, 2), np.int64)))
    assert load is not None
    assert np.isnan(load.share_BNE[:, 1]).all()
    assert not load.violation_BN[:, 0].any()
    assert expert_load([]) is None
    assert expert_load([{"step": 1, "loss": 2.0}]) is None
