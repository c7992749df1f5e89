"""Draws per second of `SamplingPlan.at` on one core: blocks of several lengths, in order and at random, every cut.

    python benchmarks/bench_plans.py [--rounds 9] [--save]

Before anything is timed, each plan is checked: every draw of a smaller plan is made and counted against the allocation,
positions asked for in a mixed-up order must give what reading through gives, and no document may be drawn twice in an
epoch. Rounds are interleaved over the cases; the table gives median and quartiles of draws per second of the thread's
own processor time (so that a shared machine does not count against it), and the median by the clock beside it.
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

from dataforge.plans import SamplingPlan
from dataforge.plans.order import ALGORITHM_VERSION

CASES = {
    "clusterclip, 64 clusters, 10^7 documents": (64, 10**7, {}),
    "clusterclip, 2,000 clusters, 10^8 documents": (2000, 10**8, {}),
    "clusterclip, 10,000 clusters, 10^9 documents": (10_000, 10**9, {}),
    "stationary, 2,000 clusters, 10^8 documents": (2000, 10**8, {"schedule": "stationary"}),
    "proportional, 2,000 clusters, 10^8 documents": (2000, 10**8, {"sampler": "proportional"}),
}
BLOCKS = (1024, 16_384, 1 << 20)
DRAWS = 1 << 20
"""Timed in each round, in calls of one block each."""


def sizes_of(num_clusters: int, num_documents: int) -> np.ndarray:
    """Cluster sizes as k-means gives them on web text: log-normal, a factor of some hundred between small and large."""
    weights = np.random.default_rng(0).lognormal(0, 1.2, num_clusters)
    return np.maximum(1, weights / weights.sum() * num_documents).astype(np.int64)


def build(num_clusters: int, num_documents: int, options: dict) -> SamplingPlan:
    return SamplingPlan.build(sizes_of(num_clusters, num_documents), epochs=2.0, max_repeats=4, seed=1, **options)


def check(num_clusters: int, options: dict) -> None:
    """Every draw of a plan with the same clusters and about 40 documents in each."""
    plan = build(num_clusters, num_clusters * 40, options)
    positions = np.arange(plan.num_draws)
    cluster, document, epoch = plan.at(positions)
    assert np.array_equal(np.bincount(cluster, minlength=num_clusters), plan.draws_per_cluster), "allocation"
    assert (document < plan.sizes_C[cluster]).all(), "document"
    assert len(np.unique(np.stack([cluster, document, epoch]), axis=1).T) == plan.num_draws, "drawn twice in an epoch"
    mixed = np.random.default_rng(1).permutation(positions)
    assert all(np.array_equal(a[mixed], b) for a, b in zip((cluster, document, epoch), plan.at(mixed))), "pure"


def timed(plan: SamplingPlan, positions: np.ndarray, block: int) -> tuple[float, float]:
    """Draws per second of processor time and of the clock over all positions, one call a block."""
    clock, processor = time.perf_counter(), time.thread_time()
    for start in range(0, len(positions), block):
        plan.at(positions[start : start + block])
    processor, clock = time.thread_time() - processor, time.perf_counter() - clock
    return len(positions) / processor, len(positions) / clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/plans.json")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    runs = []
    for name, (num_clusters, num_documents, options) in CASES.items():
        check(num_clusters, options)
        began = time.perf_counter()
        plan = build(num_clusters, num_documents, options)
        num_segments = plan.order.num_segments
        seconds = time.perf_counter() - began
        print(f"checked {name}; built in {seconds * 1000:.0f} ms, {num_segments:,} segments", file=sys.stderr)
        start = plan.num_draws // 3
        spread = np.random.default_rng(2).integers(0, plan.num_draws, DRAWS)
        runs += [
            (name, f"in order, {block:,} a call", plan, np.arange(start, start + DRAWS), block) for block in BLOCKS
        ]
        runs.append((name, f"at random, {BLOCKS[-1]:,} a call", plan, spread, BLOCKS[-1]))
    rates: list[list[tuple[float, float]]] = [[] for _ in runs]
    for _ in range(args.rounds + 1):
        for index, (_, _, plan, positions, block) in enumerate(runs):
            rates[index].append(timed(plan, positions, block))
    table = []
    for (name, how, *_), measured in zip(runs, rates, strict=True):
        processor, clock = zip(*measured[1:], strict=True)  # the first round warms caches
        low, middle, high = statistics.quantiles(processor, n=4)
        row = {"case": name, "calls": how, "median": middle, "quartiles": [low, high], "max": max(processor)}
        table.append({**row, "median_by_the_clock": statistics.median(clock)})
        print(
            f"{name:<46} {how:<28} {middle / 1e6:6.1f} M/s  [{low / 1e6:.1f}, {high / 1e6:.1f}]  "
            f"max {max(processor) / 1e6:.1f}  by the clock {statistics.median(clock) / 1e6:.1f}"
        )
    told = {
        "what": "draws per second of SamplingPlan.at: of processor time, and of the clock",
        "command": "python benchmarks/bench_plans.py --rounds " + str(args.rounds),
        "algorithm_version": ALGORITHM_VERSION,
        "rounds": args.rounds,
        "device": _device(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "commit": _commit(),
        "table": table,
    }
    print(f"{told['device']}; Python {platform.python_version()}, NumPy {np.__version__}")
    if args.save:
        path = Path(__file__).parent / "results" / "plans.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(told, indent=1) + "\n")
        print(path)


def _device() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, one of {os.cpu_count()} cores"


def _commit() -> str | None:
    run = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return run.stdout.strip() or None


if __name__ == "__main__":
    main()
