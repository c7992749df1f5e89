"""How the tokens spread over experts: layers and experts over the steps of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dataforge.analysis.chain import Chain
from dataforge.analysis.charts import Series, heat_map, lines
from dataforge.analysis.markup import Html, figure, join, table, tag
from dataforge.analysis.section import Section

# S steps  B stretches of steps  N layers  E experts

MOST_STRETCHES = 120
MOST_ROWS = 2048
_FULL_COLOUR = 1.0  # log2 of the load over the mean: half and twice


@dataclass(frozen=True)
class ExpertLoad:
    """Tokens per expert over a run."""

    steps_B: np.ndarray
    """The last step of each stretch."""
    share_BNE: np.ndarray
    """Each expert's share of its layer's tokens times E: 1 is the mean. NaN where a layer routed nothing."""
    violation_BN: np.ndarray
    """MaxVio, the fullest expert's load over the mean less 1, of the stretch as a whole."""
    step_violation_SN: np.ndarray
    """MaxVio of every single step."""
    dropped_share_N: np.ndarray
    """Choices without a seat over all choices, of the whole run."""


def expert_load(metrics: list[dict[str, Any]]) -> ExpertLoad | None:
    """The load of a run, or None if no layer has experts. Steps are added up in at most 120 stretches."""
    if not metrics or not metrics[0].get("tokens_per_expert"):
        return None
    tokens_SNE = np.array([row["tokens_per_expert"] for row in metrics], dtype=np.float64)
    dropped_SN = np.array([row["dropped"] for row in metrics], dtype=np.float64)
    num_steps = len(metrics)
    edges = np.linspace(0, num_steps, min(num_steps, MOST_STRETCHES) + 1).astype(np.int64)
    tokens_BNE = np.add.reduceat(tokens_SNE, edges[:-1], axis=0)
    share_BNE = _over_mean(tokens_BNE)
    step_violation_SN = _over_mean(tokens_SNE).max(axis=2) - 1
    chosen_N = tokens_SNE.sum(axis=(0, 2))
    return ExpertLoad(
        steps_B=np.array([metrics[edge - 1]["step"] for edge in edges[1:]], dtype=np.int64),
        share_BNE=share_BNE,
        violation_BN=share_BNE.max(axis=2) - 1,
        step_violation_SN=step_violation_SN,
        dropped_share_N=np.divide(dropped_SN.sum(axis=0), chosen_N, out=np.zeros_like(chosen_N), where=chosen_N > 0),
    )


def _over_mean(tokens: np.ndarray) -> np.ndarray:
    mean = tokens.mean(axis=-1, keepdims=True)
    return np.divide(tokens, mean, out=np.full_like(tokens, np.nan), where=mean > 0)


def section(chain: Chain) -> Section:
    """A heat map of the load, MaxVio over the steps, and a table by layer."""
    if chain.one("checkpoints") is None:
        return Section("experts", "Experts", None, "nothing has been trained in this chain.")
    load = expert_load(chain.metrics)
    if load is None:
        return Section("experts", "Experts", None, "no layer of this model has experts.")
    return Section("experts", "Experts", tag("div", _map(load), _violation(load), class_="two"))


def _map(load: ExpertLoad) -> Html:
    num_stretches, num_layers, num_experts = load.share_BNE.shape
    shown = max(1, min(num_layers, MOST_ROWS // num_experts))
    layers = np.linspace(0, num_layers - 1, shown).round().astype(np.int64)
    with np.errstate(divide="ignore"):
        values = np.log2(load.share_BNE[:, layers]).transpose(1, 2, 0)
    picture = heat_map(
        np.where(np.isneginf(values), -_FULL_COLOUR, values),
        title=f"Load of {num_experts} experts in {shown} layers over the steps, half to twice the mean",
        groups=[f"layer {layer}" for layer in layers],
        x_low=0,
        x_high=float(load.steps_B[-1]),
        x_label="step",
        limit=_FULL_COLOUR,
    )
    caption = (
        f"Expert load: a row for each of {num_experts} experts, a block for each MoE layer. Clear is the mean, orange "
        "is more, blue is less; full colour is half and twice."
    )
    if shown < num_layers:
        caption += f" {shown} of {num_layers} layers are shown, evenly spaced."
    if num_stretches < load.step_violation_SN.shape[0]:
        caption += f" Steps are added up in {num_stretches} stretches."
    last = load.share_BNE[-max(1, num_stretches // 10) :].mean(axis=0)
    at_end_N = load.violation_BN[-1]
    rows = [
        (
            f"layer {layer}",
            *(f"{value:.2f}" for value in (last[layer].min(), last[layer].max(), at_end_N[layer])),
            dropped,
        )
        for layer, dropped in enumerate(f"{share:.2%}" for share in load.dropped_share_N)
    ]
    numbers = table(
        ("layer", "least over mean", "most over mean", "MaxVio at the end", "dropped in the run"),
        rows,
        caption="Load of the last tenth of the run, by layer",
        numeric=(1, 2, 3, 4),
    )
    return figure(picture, caption, numbers)


def _violation(load: ExpertLoad) -> Html:
    num_steps, num_layers = load.step_violation_SN.shape
    steps = np.linspace(1, load.steps_B[-1], num_steps)
    worst, mean = load.step_violation_SN.max(axis=1), load.step_violation_SN.mean(axis=1)
    series = [Series("mean over layers", steps, mean, "one")]
    if num_layers > 1:
        series.insert(0, Series("worst layer", steps, worst, "three"))
    drawn = lines(series, title="MaxVio over the steps", x_label="step", y_label="MaxVio", floor=0.0)
    caption = "MaxVio of every step: the fullest expert's load over the mean, less 1. 0 is perfect balance."
    if load.dropped_share_N.any():
        caption += f" {load.dropped_share_N.mean():.2%} of the choices found no seat."
    return figure(join([drawn]), caption)
