import json

import numpy as np
import pytest
import torch

from dataforge.moe import LoadHistory, Routing, load_entropy, max_violation
from dataforge.moe.load import load_metrics


def test_max_violation_and_entropy_at_their_ends():
    assert max_violation(torch.tensor([5, 5])).item() == 0.0
    assert max_violation(torch.tensor([8, 0, 0, 0])).item() == 3.0
    assert max_violation(torch.tensor([0, 0])).item() == 0.0
    assert load_entropy(torch.tensor([1, 1, 1, 1])).item() == pytest.approx(1.0)
    assert load_entropy(torch.tensor([1, 3])).item() == pytest.approx(0.8113, abs=1e-4)


def test_metrics_tell_choices_drops_and_tokens_left_without_an_expert():
    routing = Routing.from_top_k(torch.tensor([[0, 1], [0, 1], [0, 2]]), torch.full((3, 2), 0.5), num_experts=3)
    routing = routing.with_dropped(torch.tensor([[False, False], [True, True], [True, False]]))
    told = load_metrics(routing)
    assert told["tokens_per_expert"].tolist() == [3, 2, 1]
    assert told["dropped"].item() == 3
    assert told["tokens_without_expert"].item() == 1
    assert told["max_violation"].item() == 0.5


def test_history_follows_a_run_and_reads_it_back(tmp_path):
    history, lines = LoadHistory(), []
    for step in (1, 2):
        load = [[step, 3], [2, 2]]
        history.add(step, load, [0, step])
        lines.append(json.dumps({"step": step, "tokens_per_expert": load, "dropped": [0, step]}))
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines) + "\n")
    for found in (history, LoadHistory.from_metrics(path)):
        assert found.steps.tolist() == [1, 2]
        assert found.tokens.tolist() == [[[1, 3], [2, 2]], [[2, 3], [2, 2]]]
        assert found.dropped.tolist() == [[0, 1], [0, 2]]
        assert np.allclose(found.max_violation(), [[0.5, 0.0], [0.2, 0.0]])
