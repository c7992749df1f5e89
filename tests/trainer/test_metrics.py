import json

import pytest
import torch

from dataforge.trainer.metrics import MetricsLog, merge_router_metrics, read_metrics


def write(path, steps, after=0):
    log = MetricsLog(path, after_step=after)
    for step in steps:
        log.write({"step": step, "loss": 1 / step})
    log.sync()
    log.close()


def test_each_step_stands_once_after_a_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 8))
    write(path, range(5, 10), after=4)
    assert [row["step"] for row in read_metrics(path)] == list(range(1, 10))
    whole = tmp_path / "whole.jsonl"
    write(whole, range(1, 10))
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("torn", ['{"step": 4, "lo', '{"step": 4, "loss": 0.25}', "\x00\x00\n", "[4]\n"])
def test_a_torn_last_line_is_cut_off(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 4))
    with path.open("a") as file:
        file.write(torn)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    write(path, [4], after=3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]


def test_a_number_that_is_none_is_not_written(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", after_step=0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.write({"step": 1, "loss": float("nan")})
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_counts_of_several_passes_add_up_and_the_rest_is_averaged_by_rows():
    passes = [
        {
            "tokens_per_expert": torch.tensor([[4, 0], [2, 2]]),
            "dropped": torch.tensor([1, 0]),
            "tokens_without_expert": torch.tensor([1, 0]),
            "max_violation": torch.tensor([1.0, 0.0]),
            "gate_entropy": torch.tensor([0.4, 0.8]),
        },
        {
            "tokens_per_expert": torch.tensor([[0, 2], [2, 0]]),
            "dropped": torch.tensor([0, 0]),
            "tokens_without_expert": torch.tensor([0, 0]),
            "max_violation": torch.tensor([1.0, 1.0]),
            "gate_entropy": torch.tensor([0.8, 0.8]),
        },
    ]
    told = merge_router_metrics(passes, [0.75, 0.25])
    assert told["tokens_per_expert"] == [[4, 2], [4, 2]]
    assert told["dropped"] == [1, 0]
    assert told["max_violation"] == pytest.approx([1 / 3, 1 / 3])
    assert told["gate_entropy"] == pytest.approx([0.5, 0.8])
    assert merge_router_metrics([{}], [1.0]) == {}
