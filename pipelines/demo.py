"""The whole chain on the bundled sample: `python -m dataforge.pipelines.demo --folder demo`, or `make demo`.

It runs `recipes/tiny.toml` with two worker processes, trains from the rows that a service on a free loopback port
streams, evaluates, writes a report, and says what was made. A second run makes nothing twice.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from dataforge.analysis import Chain, headline, report
from dataforge.analysis.seconds import by_step
from dataforge.analysis.training import HeldOutBits, curves, held_out
from dataforge.cli import exit_code
from dataforge.cli.progress import progress
from dataforge.cli.run_command import service
from dataforge.recipe import Recipe, load_recipe, run_recipe
from dataforge.runners import ProcessPool
from dataforge.stage import Run
from dataforge.workspace import Artifact, Workspace

RECIPE = Path(__file__).parent / "recipes" / "tiny.toml"
WORKERS = 2
LEAST_BELOW_UNIGRAM = 0.15
"""A trained model must need at least this share fewer bits a byte, on held-out documents, than a unigram model."""


def demo(folder: Path, recipe: Recipe, run: Run, *, report_name: str = "report.html") -> Chain:
    """Make a recipe in `folder/workspace`, write a report into `folder`, and say what was made.

    Args:
        folder: made if it is not there.
        recipe: ends in a `[train]` table.
        run: where parts are made, and progress.
        report_name: the report's file name.
    Returns:
        The chain that leads to the checkpoint.
    """
    began = time.perf_counter()
    workspace = Workspace(folder / "workspace")
    before = {(artifact.kind, artifact.id) for artifact in workspace.artifacts()}
    made = run_recipe(workspace, recipe, run=run, serve=service, say=_talk)
    chain = Chain.of(workspace, made["train"])
    path = report(workspace, made["train"], folder / report_name)
    fresh = [artifact for artifact in chain.artifacts if (artifact.kind, artifact.id) not in before]
    _tell(chain, fresh, time.perf_counter() - began)
    print(f"\n{path}")
    return chain


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with another seed for the plan's order and the model's weights, and another name."""
    configs = dict(recipe.configs)
    for step in ("plan", "train"):
        configs[step] = dataclasses.replace(configs[step], seed=seed)
    return dataclasses.replace(recipe, name=f"{recipe.name}-seed{seed}", configs=configs)


def _talk(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _tell(chain: Chain, fresh: list[Artifact], seconds: float) -> None:
    """What was made, the figures, and the seconds of each step."""
    if fresh:
        found = len(chain.artifacts) - len(fresh)
        print(f"\n{len(fresh)} artifacts made" + (f", {found} found:" if found else ":"))
        for artifact in fresh:
            print(f"    {artifact.ref}")
    else:
        print(f"\nnothing new was made; {len(chain.artifacts)} artifacts found")
    print("\nfigures")
    for figure in headline(chain):
        print(f"    {figure.name:<24}{figure.value:>12}   {figure.note}")
    print("\nseconds of each step" + ("" if fresh else ", when it was made"))
    for step, taken in by_step(chain).items():
        print(f"    {step:<24}{taken:>12.1f}")
    print(f"    {'this run, in all':<24}{seconds:>12.1f}")


def low_enough(bits: HeldOutBits | None) -> bool:
    """Whether the model is far enough below the unigram model."""
    return bits is not None and bits.below_unigram is not None and bits.below_unigram >= LEAST_BELOW_UNIGRAM


def _verdict(chain: Chain) -> bool:
    bits = held_out(chain)
    if not low_enough(bits):
        below = "was not measured" if bits is None or bits.below_unigram is None else f"is {bits.below_unigram:.1%}"
        _talk(f"held-out bits a byte below the unigram model's: {below}, not {LEAST_BELOW_UNIGRAM:.0%}")
        return False
    return True


def _seed_line(seed: int, chain: Chain) -> str:
    bits, run = held_out(chain), curves(chain.metrics)
    assert bits is not None
    assert bits.unigram is not None
    loss = f"loss {run.loss_S[0]:.3f} to {run.final_loss:.3f}"
    beside = f"unigram {bits.unigram:.3f} ({bits.below_unigram:.1%} below), bigram {bits.bigram:.3f}"
    return f"seed {seed}: {loss}, held-out {bits.model:.3f} bits a byte, {beside}, {by_step(chain)['train']:.1f} s"


@click.command("python -m dataforge.pipelines.demo", help=__doc__)
@click.option("--folder", default="demo", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--seeds", default=1, show_default=True, help="models to train, each with a seed of its own")
def command(folder: Path, seeds: int) -> int:
    """Run the demo; 1 if a model is not far enough below the unigram model."""
    recipe = load_recipe(RECIPE)
    run = Run(runner=ProcessPool(WORKERS), progress=progress())
    chains = [demo(folder, recipe, run)]
    for seed in range(1, seeds):
        chains.append(demo(folder, with_seed(recipe, seed), run, report_name=f"report-seed{seed}.html"))
    if seeds > 1:
        print()
        for seed, chain in enumerate(chains):
            print(_seed_line(seed, chain))
    return 0 if all([_verdict(chain) for chain in chains]) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; exit codes as of `dataforge`."""
    return exit_code(lambda: command.main(arguments, standalone_mode=False))


if __name__ == "__main__":
    sys.exit(main())
