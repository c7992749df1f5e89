"""Seconds and tokens per second of a training step of the `tiny` preset on this machine's CPU.

    python benchmarks/bench_train.py [--rounds 15] [--threads 2] [--save]

A step is what `dataforge train` does between two rows of metrics: documents of the rows laid out, forward, backward,
gradients clipped, AdamW. Before anything is timed, the model's loss and every gradient are compared in float64 with a
twin that holds all logits and computes each pair of token and expert by itself. Rounds are interleaved over the cases.
By the clock other work on the machine counts; processor seconds are summed over threads (waiting ones included).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from dataforge.model import Decoder, layout_of_segments, model_config
from dataforge.moe.experts import Experts
from dataforge.trainer import TrainConfig
from dataforge.trainer.optimizer import Optimizer

ROWS, LENGTH = 8, 256
CASES = {
    "top_k, 8 experts, 2 a token; 8,192 token ids": (8192, {}),
    "top_k, 8 experts, 2 a token; 4,096 token ids": (4096, {}),
    "switch, 8 experts, 1 a token; 8,192 token ids": (8192, {"router": "switch"}),
    "dense, inner width 256; 8,192 token ids": (8192, {"num_experts": 0, "ffn_size": 256}),
}


def a_batch(vocab_size: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Rows of random tokens, cut into documents of 1 to 200."""
    generator = np.random.default_rng(seed)
    table = []
    for row in range(ROWS):
        left = LENGTH + 1
        while left:
            length = min(left, int(generator.integers(1, 200)))
            table.append((row, len(table), 0, length))
            left -= length
    return torch.from_numpy(generator.integers(0, vocab_size, (ROWS, LENGTH + 1))), np.array(table)


def loop_over_pairs(experts, x_TH, routing):
    """The twin of `Experts.forward`."""
    y_TH = torch.zeros_like(x_TH)
    for token, expert, weight in zip(*routing.pairs(), strict=True):
        gate, up = F.linear(x_TH[token], experts.gate_up_proj[expert]).chunk(2)
        y = F.linear(F.silu(gate) * up, experts.down_proj[expert])
        y_TH = y_TH.index_add(0, token[None], (weight * y)[None])
    return y_TH


def check(vocab_size: int, changes: dict) -> None:
    """Loss and gradients of two short rows against the twin."""
    model = Decoder(model_config("tiny", 97, changes)).double()
    token_ids = a_batch(97, seed=1)[0][:2, :41]
    layout = layout_of_segments([(0, 0, 0, 15), (0, 1, 0, 26), (1, 2, 0, 41)], 2, 40)

    def gradients(loss):
        return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)

    nll, passed = model.loss(token_ids[:, :-1], token_ids[:, 1:], layout)
    found = gradients(nll + sum(passed.losses.values()))
    plain, Experts.forward = Experts.forward, loop_over_pairs  # type: ignore[method-assign]
    try:
        passed = model.hidden(token_ids[:, :-1], layout)
        logits = F.linear(passed.hidden, model.head).flatten(0, 1)
        twin = F.cross_entropy(logits, token_ids[:, 1:].reshape(-1), reduction="sum")
        expected = gradients(twin + sum(passed.losses.values()))
    finally:
        Experts.forward = plain  # type: ignore[method-assign]
    torch.testing.assert_close(nll, twin, rtol=1e-10, atol=1e-10)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)


class Stepper:
    """A model and its optimizer, ready to take steps."""

    def __init__(self, vocab_size: int, changes: dict) -> None:
        self.model = Decoder(model_config("tiny", vocab_size, changes))
        self.optimizer = Optimizer(self.model, TrainConfig())
        self.vocab_size, self.steps = vocab_size, 0

    def step(self) -> tuple[float, float]:
        """Seconds by the clock and of the processor."""
        self.steps += 1
        token_ids, table = a_batch(self.vocab_size, self.steps)
        clock, processor = time.perf_counter(), time.process_time()
        layout = layout_of_segments(table, ROWS, LENGTH)
        nll, passed = self.model.loss(token_ids[:, :-1], token_ids[:, 1:], layout)
        loss = nll / (ROWS * LENGTH) + sum(passed.losses.values())
        loss.backward()
        self.optimizer.clip().item()
        self.optimizer.step(1e-3)
        return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/train.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name, case in CASES.items():
        check(*case)
        print(f"checked {name}", file=sys.stderr)
    steppers = {name: Stepper(*case) for name, case in CASES.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for _ in range(args.rounds + 2):
        for name, stepper in steppers.items():
            seconds[name].append(stepper.step())
    table = []
    for name, measured in seconds.items():
        clock, processor = (sorted(told) for told in zip(*measured[2:], strict=True))  # the first two warm up
        middle = statistics.median(clock)
        model = steppers[name].model
        row = {
            "case": name,
            "parameters": model.num_parameters(),
            "active_parameters": model.num_parameters(active=True),
            "step_s": {"min": clock[0], "median": middle, "max": clock[-1]},
            "processor_s": statistics.median(processor),
            "tokens_per_s": {"median": ROWS * LENGTH / middle, "max": ROWS * LENGTH / clock[0]},
        }
        table.append(row)
        print(
            f"{name:<46} {clock[0] * 1e3:5.0f} / {middle * 1e3:5.0f} / {clock[-1] * 1e3:5.0f} ms   "
            f"{ROWS * LENGTH / middle:8,.0f} tokens/s   processor {statistics.median(processor) * 1e3:5.0f} ms"
        )
    told = {
        "what": f"a training step of {ROWS} rows of {LENGTH} tokens, float32",
        "command": f"python benchmarks/bench_train.py --rounds {args.rounds} --threads {args.threads}",
        "rounds": args.rounds,
        "device": f"{_processor()}, {args.threads} threads, load {os.getloadavg()[0]:.1f} at the end",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "commit": _commit(),
        "table": table,
    }
    print(f"{told['device']}; torch {torch.__version__}")
    if args.save:
        path = Path(__file__).parent / "results" / "train.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(told, indent=1) + "\n")
        print(path)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    run = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return run.stdout.strip() or None


if __name__ == "__main__":
    main()
