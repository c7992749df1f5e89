"""How long every step took, and at what rate."""

from __future__ import annotations

from dataclasses import dataclass

from dataforge.analysis.chain import Chain, step_of
from dataforge.analysis.charts.bars import Pair, paired_bars
from dataforge.analysis.markup import join, table, tag
from dataforge.analysis.section import Section
from dataforge.workspace import Artifact
from dataforge.workspace.parts import read_json


@dataclass(frozen=True)
class Took:
    """The run that finished one artifact, as its `run.json` says."""

    artifact: Artifact
    seconds: float
    parts_made: int
    parts_found: int
    """Found whole, by an earlier run or in another artifact."""
    rates: dict[str, float]
    """Unit -> how many a second. Empty where parts were found: their seconds are not in this run's."""
    host: str
    cpus: int

    @property
    def step(self) -> str:
        return step_of(self.artifact)


def took(artifact: Artifact) -> Took | None:
    """How the artifact was made, or None if there is no `run.json` beside its manifest."""
    path = artifact.path / "run.json"
    if not path.is_file():
        return None
    told = read_json(path)
    seconds, found = float(told["seconds"]), int(told.get("found", 0)) + int(told.get("reused", 0))
    counts = {**artifact.counts.get("in", {}), **artifact.counts.get("out", {})}
    rates = {}
    if not found and seconds > 0:
        rates = {unit: counts[unit] / seconds for unit in ("documents", "bytes", "tokens") if counts.get(unit)}
    return Took(artifact, seconds, int(told.get("made", 0)), found, rates, told.get("host", ""), told.get("cpus") or 0)


def by_step(chain: Chain) -> dict[str, float]:
    """Step -> seconds of all its artifacts, in the order of the chain."""
    told: dict[str, float] = {}
    for artifact in chain.artifacts:
        run = took(artifact)
        if run is not None:
            told[run.step] = told.get(run.step, 0.0) + run.seconds
    return told


def section(chain: Chain) -> Section:
    """A bar for each step, and a table of every artifact."""
    runs = [run for artifact in chain.artifacts if (run := took(artifact)) is not None]
    if not runs:
        return Section("seconds", "Seconds", None, "no artifact here has a run.json beside its manifest.")
    steps = by_step(chain)
    total = sum(steps.values())
    pairs = [Pair(step, seconds / (total or 1.0), None, f"{seconds:,.1f} s") for step, seconds in steps.items()]
    bars = paired_bars(pairs, title="Share of the seconds by step", before="share of the time", after=None)
    hosts = sorted({f"{run.host} ({run.cpus} CPUs)" for run in runs if run.host})
    where = ", ".join(hosts) or "a machine that was not noted"
    lead = f"{total:,.1f} seconds in all, on {where}. What was interrupted counts the run that finished it."
    rows = []
    for run in runs:
        rates = run.rates if run.artifact.kind != "checkpoints" else _training_rate(chain)
        told = ", ".join(f"{rate:,.0f} {unit}/s" for unit, rate in rates.items()) or "–"
        name = tag("code", f"{run.artifact.kind}/{run.artifact.name}")
        rows.append((name, run.step, f"{run.seconds:,.2f}", _parts(run), told))
    numbers = table(
        ("artifact", "step", "seconds", "parts", "rate"),
        rows,
        caption="Seconds and rate of every artifact",
        numeric=(2,),
    )
    return Section("seconds", "Seconds", join([tag("p", lead), bars, numbers]))


def _training_rate(chain: Chain) -> dict[str, float]:
    """Tokens a second over all steps, also those of interrupted runs; evaluation left out."""
    seconds = sum(row.get("seconds", 0.0) for row in chain.metrics)
    return {"tokens": chain.metrics[-1]["tokens"] / seconds} if seconds > 0 else {}


def _parts(run: Took) -> str:
    if not run.parts_made and not run.parts_found:
        return "in one piece"
    return f"{run.parts_made:,} made" + (f", {run.parts_found:,} found" if run.parts_found else "")
