"""Tokens per second of the loader, direct and over HTTP loopback, and how soon a resumed loader has its first batch.

    python benchmarks/bench_streams.py [--rounds 9] [--tokens 64] [--save]

Rows of 2,048 tokens are cut from random documents (geometric lengths, 500 tokens in the mean, vocabulary 50,000) drawn
by a ClusterClip plan. Before anything is timed, batches from every way are compared with rows put together document by
document. A round reads all rows once in each way, at global batch 8, checksums on; rounds are interleaved, and every
round opens its loaders anew, so the first touch of every page is checked in it. `memcpy` copies as many bytes as int64
batches hold, in pieces of 8 MiB. HTTP is `dataforge serve` in a process of its own, on the same cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dataforge.plans import SamplingPlan
from dataforge.plans.members import write_members
from dataforge.rows import Rows
from dataforge.rows.pack import PackConfig, pack
from dataforge.shards import ShardWriter, write_index
from dataforge.streams import Loader
from dataforge.workspace import Artifact, Manifest, Workspace

ROW_LENGTH = 2048
BATCH = 8
VOCAB = 50_000
DOCUMENTS_A_PART = 16_000


def artifact(workspace: Workspace, kind: str, fill: Callable[[Path], None]) -> Artifact:
    """An artifact of made-up identity around what `fill` writes."""
    folder = workspace.path / kind / "bench@000000000000"
    folder.mkdir(parents=True)
    fill(folder)
    told = Manifest(kind, "000000000000", 1, {}, {}, {}, [], f"sha256:{kind:0>64}")
    (folder / "manifest.json").write_text(json.dumps(told.to_json()))
    return Artifact.at(folder)


def build(folder: Path, num_tokens: int) -> Artifact:
    """A rows artifact of about `num_tokens` tokens."""
    workspace = Workspace(folder / "workspace")
    rng = np.random.default_rng(0)
    parts = max(1, round(num_tokens / 500 / DOCUMENTS_A_PART))
    documents = parts * DOCUMENTS_A_PART

    def shards(path: Path) -> None:
        paths = [path / f"part-{i:05d}.tok" for i in range(parts)]
        for i, part in enumerate(paths):
            lengths = np.minimum(rng.geometric(1 / 500, DOCUMENTS_A_PART), 100_000)
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            token_ids = rng.integers(0, VOCAB, int(offsets[-1]), dtype=np.uint16)
            numbers = i * DOCUMENTS_A_PART + np.arange(DOCUMENTS_A_PART)
            with ShardWriter(part, vocab_size=VOCAB, fingerprint=bytes(32), eos_id=0) as writer:
                writer.add_batch(numbers, token_ids, offsets, 4 * lengths)
        write_index(path / "index.tok", paths)

    def plan(path: Path) -> None:
        labels = rng.integers(0, 64, documents)
        built = SamplingPlan.build(np.bincount(labels, minlength=64), num_draws=documents, seed=1)
        built.save(path)
        write_members(path / "members.bin", 64, lambda: [(np.arange(documents), labels)])

    config = PackConfig(row_length=ROW_LENGTH)
    return pack(
        workspace,
        artifact(workspace, "plans", plan),
        artifact(workspace, "shards", shards),
        name="bench",
        config=config,
    )


def check(rows: Artifact, sources: list[str]) -> None:
    """Every way gives the tokens that the documents of the draws give, one behind the other."""
    opened = Rows(rows)
    cluster, inside, _ = opened.plan.at(np.arange(200))
    numbers = opened.plan.document_numbers(cluster, inside).tolist()
    sequence = np.concatenate([opened.shards.tokens(number) for number in numbers])
    count = (sequence.size - 1) // ROW_LENGTH // BATCH * BATCH
    expected = np.lib.stride_tricks.sliding_window_view(sequence, ROW_LENGTH + 1)[::ROW_LENGTH][:count]
    for source in sources:
        with Loader(source, global_batch=BATCH, steps=count // BATCH) as loader:
            assert np.array_equal(np.concatenate([batch.token_ids for batch in loader]), expected), source


@contextlib.contextmanager
def serving(rows: Artifact) -> Iterator[str]:
    """The URL of the rows, from a service in a process of its own."""
    run = "from dataforge.cli import main; main()"
    where = ["--workspace", str(rows.workspace_path), "--port", "0", "--no-auth"]
    command = [sys.executable, "-c", run, "serve", *where]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http"), "the service did not start"
        yield f"{url}/v1/rows/{rows.id}"
    finally:
        process.terminate()
        process.wait()


def read_all(source: str, dtype: str) -> float:
    """Tokens per second of one pass over all rows; labels overlap, so a row counts L tokens."""
    began = time.perf_counter()
    with Loader(source, global_batch=BATCH, dtype=dtype) as loader:
        num_rows = sum(batch.token_ids.shape[0] for batch in loader)
    return num_rows * ROW_LENGTH / (time.perf_counter() - began)


def copy_all(num_tokens: int) -> float:
    source, target = np.ones(1 << 20, np.int64), np.empty(1 << 20, np.int64)
    began = time.perf_counter()
    for _ in range(num_tokens >> 20):
        np.copyto(target, source)
    return (num_tokens >> 20 << 20) / (time.perf_counter() - began)


def first_batch(source: str, cursor: int) -> float:
    """Seconds from nothing to the first batch at a row."""
    began = time.perf_counter()
    with Loader(source, global_batch=BATCH, cursor=cursor) as loader:
        next(loader)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=64, help="millions")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/streams.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = build(Path(folder), args.tokens * 10**6)
        num_rows = Rows(rows).num_rows
        with serving(rows) as url:
            near = str(rows.path)
            check(rows, [near, url])
            spread = np.random.default_rng(1).integers(0, num_rows - BATCH, args.rounds + 1).tolist()
            cases: dict[str, Callable[[int], float]] = {
                "memcpy, as int64 tokens": lambda _: copy_all(num_rows * ROW_LENGTH),
                "direct, int64": lambda _: read_all(near, "int64"),
                "direct, uint16": lambda _: read_all(near, "uint16"),
                "HTTP loopback, int64": lambda _: read_all(url, "int64"),
                "HTTP loopback, uint16": lambda _: read_all(url, "uint16"),
                "first batch at a random row, direct, ms": lambda i: 1000 * first_batch(near, spread[i]),
                "first batch at a random row, HTTP, ms": lambda i: 1000 * first_batch(url, spread[i]),
            }
            found: dict[str, list[float]] = {name: [] for name in cases}
            for i in range(args.rounds + 1):
                for name, run in cases.items():
                    found[name].append(run(i))
    table = []
    for name, values in found.items():
        scale, unit = (1, "ms") if name.endswith("ms") else (1e6, "M tokens/s")
        low, middle, high = (value / scale for value in statistics.quantiles(values[1:], n=4))  # the first warms caches
        table.append({"case": name, "median": middle, "quartiles": [low, high], "unit": unit})
        print(f"{name:<42} {middle:9.1f} {unit:<10}  [{low:.1f}, {high:.1f}]")
    told = {
        "what": f"{num_rows:,} rows of {ROW_LENGTH:,} tokens, global batch {BATCH}",
        "command": f"python benchmarks/bench_streams.py --rounds {args.rounds} --tokens {args.tokens}",
        "device": _device(),
        "load": os.getloadavg(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "commit": _commit(),
        "table": table,
    }
    print(f"{told['device']}, load {told['load'][0]:.1f}; Python {platform.python_version()}, NumPy {np.__version__}")
    if args.save:
        path = Path(__file__).parent / "results" / "streams.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(told, indent=1) + "\n")
        print(path)


def _device() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def _commit() -> str | None:
    run = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return run.stdout.strip() or None


if __name__ == "__main__":
    main()
