"""A plan on disk: `plan.json` says everything but the documents' numbers, `members.bin` holds those.

`plan.json` is canonical JSON: settings, one list each for sizes, draws and caps by cluster, further lists where they
say something (weights, rates, floors, tokens), and the segments: how the run is cut, with a digest of the cut. A reader
that would cut the run in another way finds out, and refuses.
"""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dataforge.errors import FormatError
from dataforge.plans.members import Members
from dataforge.plans.order import ALGORITHM_VERSION, Order
from dataforge.plans.sampling_plan import SamplingPlan
from dataforge.workspace.content import canonical_json

FORMAT = 1


def write_plan(plan: SamplingPlan, path: Path) -> None:
    """Write `plan.json`: the same bytes for the same plan."""
    lists = {
        "sizes": plan.sizes_C,
        "draws": plan.draws_per_cluster,
        "caps": plan.caps_C,
        "floors": plan.floors_C if plan.floors_C.any() else None,
        "weights": plan.weights_C if len(set(plan.weights_C.tolist())) > 1 else None,
        "rates": plan.rates_C,
        "tokens": plan.tokens_C,
    }
    told = {
        "format": FORMAT,
        "algorithm_version": ALGORITHM_VERSION,
        "sampler": plan.sampler,
        "schedule": plan.schedule,
        "seed": plan.seed,
        "unit": plan.unit,
        "budget": plan.budget,
        "max_repeats": plan.max_repeats,
        "level": [plan.level.numerator, plan.level.denominator],
        "boosts": {str(cluster): factor for cluster, factor in plan.boosts.items()},
        "options": dict(plan.options),
        "num_draws": plan.num_draws,
        "clusters": {name: None if values is None else values.tolist() for name, values in lists.items()},
        "segments": _segments(plan.order),
    }
    path.write_bytes(canonical_json(told) + b"\n")


def read_plan(folder: Path) -> SamplingPlan:
    """The plan in a folder, with its member index if there is one.

    Raises:
        FormatError: a file is torn or missing, or of a later version.
    """
    path = folder / "plan.json"
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, algorithm = told["format"], told["algorithm_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"the plan cannot be read: {error}", where=str(path), hint="make the plan again: the same request gives it"
        ) from error
    if version > FORMAT or algorithm != ALGORITHM_VERSION:
        raise FormatError(
            f"the plan has format {version} and order algorithm {algorithm}, this dataforge knows {FORMAT} and "
            f"{ALGORITHM_VERSION}",
            where=str(path),
            hint="read it with the dataforge-lm that made it, or make the plan again",
        )
    try:
        plan = _plan(told, folder)
        follows = _segments(plan.order) == told["segments"] and plan.num_draws == told["num_draws"]
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise FormatError(
            f"the plan lacks or misstates something: {error!r}", where=str(path), hint="make the plan again"
        ) from error
    if not follows:
        raise FormatError(
            "the plan's segments do not follow from its draws",
            where=str(path),
            hint="the file was changed, or this dataforge orders draws differently: make the plan again",
        )
    if plan.members is not None and not np.array_equal(plan.members.sizes_C, plan.sizes_C):
        raise FormatError(
            f"the member index holds {plan.members.num_documents:,} documents, the plan {plan.num_documents:,}",
            where=str(folder),
            hint="plan.json and members.bin are of different plans",
        )
    return plan


def _plan(told: dict[str, Any], folder: Path) -> SamplingPlan:
    sizes, draws, caps = (_list(told, name, np.int64) for name in ("sizes", "draws", "caps"))
    weights, floors, tokens = (_list(told, name, np.int64) for name in ("weights", "floors", "tokens"))
    rates = _list(told, "rates", np.float64)
    if sizes is None or draws is None or caps is None or not draws.any():
        raise ValueError("sizes, draws or caps are missing")
    if draws[sizes == 0].any() or (rates is not None and not (rates[draws > 0] > 0).all()):
        raise ValueError("draws of an empty cluster, or without a rate")
    members = folder / "members.bin"
    return SamplingPlan(
        sampler=told["sampler"],
        schedule=told["schedule"],
        seed=int(told["seed"]),
        unit=told["unit"],
        budget=told["budget"],
        max_repeats=told["max_repeats"],
        level=Fraction(*told["level"]),
        sizes_C=sizes,
        draws_per_cluster=draws,
        caps_C=caps,
        floors_C=np.zeros(len(sizes), np.int64) if floors is None else floors,
        weights_C=np.ones(len(sizes), np.int64) if weights is None else weights,
        rates_C=rates,
        tokens_C=tokens,
        boosts={int(cluster): factor for cluster, factor in told["boosts"].items()},
        options=told["options"],
        members=Members(members) if members.is_file() else None,
    )


def _list(told: dict[str, Any], name: str, kind: type[np.generic]) -> Any:
    """One value for each cluster, or None where the file says null."""
    values = told["clusters"][name]
    if values is None:
        return None
    array = np.array(values, dtype=kind)
    if array.shape != (len(told["clusters"]["sizes"]),) or not (array >= 0).all():
        raise ValueError(f"{name} are not one number of 0 or more for each cluster")
    array.setflags(write=False)
    return array


def _segments(order: Order) -> dict[str, Any]:
    """How the run is cut, in short: the kind of cut, how many segments and blocks, and a digest of all of it."""
    digest = hashlib.sha256()
    for array in order.cut():
        digest.update(len(array).to_bytes(8, "little") + np.ascontiguousarray(array, dtype="<i8").tobytes())
    return {**order.describe(), "sha256": digest.hexdigest()}
