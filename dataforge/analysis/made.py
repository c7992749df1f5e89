"""What was made: every artifact with what came in, what went out, and what was dropped for which reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dataforge.analysis.chain import Chain, step_of
from dataforge.analysis.markup import join, table, tag
from dataforge.analysis.section import Section
from dataforge.workspace import Artifact

_UNITS = ("documents", "bytes", "tokens")


@dataclass(frozen=True)
class Balance:
    """One unit of one artifact: `taken = made + Σ dropped`, if it was counted on both sides."""

    unit: str
    taken: int | None
    made: int | None
    dropped: dict[str, int]

    @property
    def holds(self) -> bool | None:
        """Whether it balances; None where only one side was counted."""
        if self.taken is None or self.made is None:
            return None
        return self.taken == self.made + sum(self.dropped.values())


def balances(artifact: Artifact) -> list[Balance]:
    """The balance of every unit that the artifact counts."""
    counts = artifact.counts
    taken, made = counts.get("in", {}), counts.get("out", {})
    told = []
    for unit in _UNITS:
        if unit in taken or unit in made:
            dropped = {reason: units[unit] for reason, units in counts.get("dropped", {}).items() if unit in units}
            told.append(Balance(unit, taken.get(unit), made.get(unit), dropped))
    return told


def section(chain: Chain) -> Section:
    """Two tables: references with further counts, and the balance of each."""
    references, rows = [], []
    for artifact in chain.artifacts:
        references.append((tag("code", artifact.ref), step_of(artifact), _inputs(artifact), _figures(artifact.counts)))
        for balance in balances(artifact):
            dropped = "; ".join(f"{count:,} {reason}" for reason, count in balance.dropped.items() if count)
            holds = {None: "counted on one side", True: "✓ balances", False: "✗ DOES NOT BALANCE"}[balance.holds]
            side = [_count(balance.taken), _count(balance.made)]
            rows.append((tag("code", f"{artifact.kind}/{artifact.name}"), balance.unit, *side, dropped or "–", holds))
    made = table(
        ("artifact", "step", "made from", "figures"), references, caption="Artifacts, each after what it was made from"
    )
    conserved = table(
        ("artifact", "unit", "in", "out", "dropped", "in = out + dropped"),
        rows,
        caption="Conservation: nothing is lost or silently dropped",
        numeric=(2, 3),
    )
    return Section("made", "What was made", join([made, conserved]))


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _inputs(artifact: Artifact) -> str:
    told = []
    for role, given in artifact.manifest.inputs.items():
        told.append(f"{role} {given['id'][:6]}…" if isinstance(given, dict) else f"{len(given):,} files")
    return ", ".join(told) or "–"


def _figures(counts: dict[str, Any]) -> str:
    plain = {key: value for key, value in counts.items() if key not in ("in", "out", "dropped")}
    told = []
    for key, value in plain.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            name = key.replace("_", " ")
            told.append(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4g}")
    return ", ".join(told) or "–"
