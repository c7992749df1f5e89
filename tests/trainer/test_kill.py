"""A training process killed with SIGKILL goes on to the very losses of one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from dataforge.trainer.metrics import TIME_FIELDS, read_metrics

SCRIPT = Path(__file__).parent / "toy_rows.py"
STEPS = 60


def start(folder):
    return subprocess.Popen([sys.executable, str(SCRIPT), str(folder), str(STEPS), "switch"])


def wait_for_step(process, folder, step):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        rows = read_metrics(folder / "metrics.jsonl")
        if rows and rows[-1]["step"] >= step:
            return
        time.sleep(0.002)


def told(folder):
    return [{k: v for k, v in row.items() if k not in TIME_FIELDS} for row in read_metrics(folder / "metrics.jsonl")]


def test_a_run_killed_twice_goes_on_to_the_same_losses_and_bytes(toy, tmp_path):
    # Switch draws jitter, drops tokens and has a balance loss: the most that there is to get wrong.
    undisturbed = toy.toy_fit(tmp_path / "undisturbed", steps=STEPS, model={**toy.TOY_MODEL, "router": "switch"})
    folder, chance = tmp_path / "killed", random.Random("kill the trainer")
    for low, high in ((3, 20), (22, 50)):
        process = start(folder)
        wait_for_step(process, folder, chance.randint(low, high))
        time.sleep(chance.random() * 0.02)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start(folder).wait(timeout=120) == 0
    assert [row["step"] for row in told(folder)] == list(range(1, STEPS + 1))
    assert told(folder) == told(tmp_path / "undisturbed")
    for path in undisturbed.checkpoint.folder.iterdir():
        assert path.read_bytes() == (folder / "checkpoints" / f"step-{STEPS:08d}" / path.name).read_bytes(), path.name
