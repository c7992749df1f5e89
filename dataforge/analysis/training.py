"""How training went: loss, bits per byte on held-out documents, and what a unigram and a bigram model reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dataforge.analysis.chain import Chain
from dataforge.analysis.charts import Level, Series, lines
from dataforge.analysis.markup import Html, figure, join, table, tag
from dataforge.analysis.section import Section
from dataforge.workspace.parts import read_json


@dataclass(frozen=True)
class Curves:
    """What the metrics of a run say, one entry a step (S) or an evaluation (N)."""

    steps_S: np.ndarray
    loss_S: np.ndarray
    lr_S: np.ndarray
    grad_norm_S: np.ndarray
    tokens_per_s_S: np.ndarray
    eval_steps_N: np.ndarray
    bits_per_byte_N: np.ndarray
    tokens: int
    """Trained on, in all."""

    @property
    def final_loss(self) -> float:
        """Mean of the last tenth of the steps: one step's loss says more about its documents."""
        return float(self.loss_S[-max(1, len(self.loss_S) // 10) :].mean())

    @property
    def tokens_per_s(self) -> float:
        """Median over the steps whose times are known; NaN if none are."""
        known = self.tokens_per_s_S[np.isfinite(self.tokens_per_s_S)]
        return float(np.median(known)) if len(known) else float("nan")


def curves(metrics: list[dict[str, Any]]) -> Curves:
    """The curves of a run's metrics, at least one step."""
    evaluated = [row for row in metrics if "held_out" in row]

    def column(name: str) -> np.ndarray:
        return np.array([row.get(name, np.nan) for row in metrics], dtype=np.float64)

    return Curves(
        steps_S=column("step"),
        loss_S=column("loss"),
        lr_S=column("lr"),
        grad_norm_S=column("grad_norm"),
        tokens_per_s_S=column("tokens_per_s"),
        eval_steps_N=np.array([row["step"] for row in evaluated], dtype=np.float64),
        bits_per_byte_N=np.array([row["held_out"]["bits_per_byte"] for row in evaluated], dtype=np.float64),
        tokens=int(metrics[-1]["tokens"]),
    )


@dataclass(frozen=True)
class HeldOutBits:
    """Bits per byte on the held-out documents after the last step."""

    model: float
    unigram: float | None
    bigram: float | None
    """Interpolated. Both were fitted on the rows trained on; None where they were not."""

    @property
    def below_unigram(self) -> float | None:
        """How far the model is below the unigram model, as a share of it."""
        return None if self.unigram is None else 1 - self.model / self.unigram


def held_out(chain: Chain) -> HeldOutBits | None:
    """The evaluation of the checkpoint in this chain, or None if no document was held out."""
    checkpoint = chain.one("checkpoints")
    if checkpoint is None:
        return None
    from dataforge.trainer.train import EVALUATION

    if not checkpoint.parts(EVALUATION):
        return None
    told = read_json(checkpoint.file(EVALUATION))
    beside = {name: found["bits_per_byte"] for name, found in told["baselines"].items()}
    return HeldOutBits(told["bits_per_byte"], beside.get("unigram"), beside.get("bigram"))


def section(chain: Chain) -> Section:
    """Loss, bits per byte beside the two baselines, learning rate and gradient norm."""
    if not chain.metrics:
        return Section("training", "Training", None, "nothing has been trained in this chain.")
    run = curves(chain.metrics)
    pictures = [_loss(run)]
    bits = held_out(chain)
    if bits is not None:
        pictures.append(_bits_per_byte(run, bits))
    pictures.append(_norm(run))
    if np.isfinite(run.tokens_per_s):
        pictures.append(_rate(run))
    lead = None if bits is None else tag("p", _lead(bits))
    return Section("training", "Training", join([lead, tag("div", *pictures, class_="two")]))


def _lead(bits: HeldOutBits) -> str:
    told = f"{bits.model:.3f} bits a byte on the held-out documents."
    if bits.unigram is not None and bits.bigram is not None:
        told += (
            f" A unigram model of the same rows needs {bits.unigram:.3f}, an interpolated bigram model "
            f"{bits.bigram:.3f}: the trained model is {_beside(bits.model, bits.unigram)} the one and "
            f"{_beside(bits.model, bits.bigram)} the other."
        )
    return told


def _beside(value: float, other: float) -> str:
    return f"{abs(1 - value / other):.1%} {'below' if value <= other else 'above'}"


def _loss(run: Curves) -> Html:
    width = max(1, len(run.loss_S) // 25)
    series = [Series("each step", run.steps_S, run.loss_S, "three thin" if width > 1 else "one")]
    if width > 1:
        mean = np.convolve(run.loss_S, np.ones(width) / width, mode="valid")
        series.append(Series(f"mean of {width} steps", run.steps_S[width - 1 :], mean, "one"))
    drawn = lines(series, title="Training loss over the steps", x_label="step", y_label="loss, nats a token")
    caption = f"Training loss: from {run.loss_S[0]:.3f} to {run.final_loss:.3f} (mean of the last tenth of the steps)."
    return figure(drawn, caption, _steps(run))


def _steps(run: Curves) -> Html:
    at = np.unique(np.linspace(0, len(run.steps_S) - 1, min(len(run.steps_S), 24)).round().astype(np.int64))
    bits = dict(zip(run.eval_steps_N.tolist(), run.bits_per_byte_N.tolist(), strict=True))
    rows = []
    for i in at.tolist():
        step = run.steps_S[i]
        told = f"{bits[step]:.4f}" if step in bits else "–"
        rate = f"{run.tokens_per_s_S[i]:,.0f}" if np.isfinite(run.tokens_per_s_S[i]) else "–"
        figures = (f"{run.lr_S[i]:.2e}", f"{run.grad_norm_S[i]:.3f}", rate)
        rows.append((f"{step:,.0f}", f"{run.loss_S[i]:.4f}", told, *figures))
    head = ("step", "loss", "held-out bits a byte", "learning rate", "gradient norm", "tokens/s")
    return table(head, rows, caption="Some steps, evenly spaced", numeric=range(6))


def _bits_per_byte(run: Curves, bits: HeldOutBits) -> Html:
    levels = [
        Level(name, value, style)
        for name, value, style in (("unigram", bits.unigram, "three"), ("interpolated bigram", bits.bigram, "two"))
        if value is not None
    ]
    model = Series("trained model", run.eval_steps_N, run.bits_per_byte_N, "one", dots=True)
    drawn = lines(
        [model], title="Bits per byte on held-out documents", x_label="step", y_label="bits a byte", levels=levels
    )
    caption = (
        "Held-out documents: bits a byte, ends of text included. Unigram and bigram were fitted on the rows trained on."
    )
    rows = [(f"{step:,.0f}", f"{value:.4f}") for step, value in zip(run.eval_steps_N, run.bits_per_byte_N, strict=True)]
    rows += [(level.name, f"{level.y:.4f}") for level in levels]
    numbers = table(("step", "bits a byte"), rows, caption="Held-out bits a byte", numeric=(1,))
    return figure(drawn, caption, numbers)


def _rate(run: Curves) -> Html:
    curve = Series("tokens a second", run.steps_S, run.tokens_per_s_S, "one")
    drawn = lines([curve], title="Tokens a second", x_label="step", y_label="tokens/s", floor=0.0)
    return figure(drawn, f"Speed: {run.tokens_per_s:,.0f} tokens a second in the median step, evaluation left out.")


def _norm(run: Curves) -> Html:
    norm = Series("gradient norm", run.steps_S, run.grad_norm_S, "one")
    drawn = lines([norm], title="Gradient norm before clipping", x_label="step", y_label="gradient norm", floor=0.0)
    peak = run.steps_S[int(np.argmax(run.lr_S))]
    told = f"The learning rate peaks at {run.lr_S.max():.2e} in step {peak:,.0f} and ends at {run.lr_S[-1]:.2e}."
    return figure(drawn, f"Gradient norm before clipping. {told}")
