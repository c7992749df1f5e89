"""How the tokens spread over experts: one step's figures on the device, and their course over a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataforge.moe.routing import Routing

# E experts  N MoE layers  S steps


def max_violation(choices_E: Tensor) -> Tensor:
    """MaxVio, the fullest expert's load over the mean load, minus 1: 0 is perfect balance, E - 1 is one expert for all.

    >>> max_violation(torch.tensor([4, 2, 2, 0])).item()
    1.0

    Source: auxiliary-loss-free balancing, arXiv:2408.15664, section 4.1.
    """
    load = choices_E.to(torch.float32)
    return load.max() / load.mean().clamp(min=1e-9) - torch.sign(load.sum())


def load_entropy(choices_E: Tensor) -> Tensor:
    """Entropy of the load divided by log E: 1 is perfect balance, 0 is one expert for all (or a single expert).

    >>> load_entropy(torch.tensor([3, 3, 3])).item(), load_entropy(torch.tensor([9, 0, 0])).item()
    (1.0, 0.0)
    """
    share = choices_E.to(torch.float32) / choices_E.sum().clamp(min=1)
    return torch.special.entr(share).sum() / max(math.log(choices_E.numel()), 1e-9)


def load_metrics(routing: Routing) -> dict[str, Tensor]:
    """What every router reports: detached tensors on the device, nothing synchronised.

    `tokens_per_expert` int64 [E] counts choices before capacity; `dropped` counts choices without a seat and
    `tokens_without_expert` the tokens that lost all of theirs; `max_violation` and `load_entropy` judge the balance.
    """
    choices_E = routing.choices_per_expert()
    lost = routing.expert.new_zeros(())
    if routing.dropped is not None:
        lost = (routing.dropped.any(1) & ~routing.kept.any(1)).sum()
    return {
        "tokens_per_expert": choices_E,
        "dropped": routing.num_dropped(),
        "tokens_without_expert": lost,
        "max_violation": max_violation(choices_E),
        "load_entropy": load_entropy(choices_E),
    }


class LoadHistory:
    """Tokens per expert, layer by layer, over the steps of a run."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._tokens: list[list[list[int]]] = []
        self._dropped: list[list[int]] = []

    def add(self, step: int, tokens_per_expert: list[list[int]], dropped: list[int]) -> None:
        """Note one step: for each MoE layer the choices per expert and the choices dropped."""
        self._steps.append(step)
        self._tokens.append(tokens_per_expert)
        self._dropped.append(dropped)

    @classmethod
    def from_metrics(cls, path: Path) -> LoadHistory:
        """The history that a run's `metrics.jsonl` holds."""
        history = cls()
        with path.open("r", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                row = json.loads(line)
                history.add(row["step"], row["tokens_per_expert"], row["dropped"])
        return history

    @property
    def steps(self) -> np.ndarray:
        """int64 [S]."""
        return np.array(self._steps, dtype=np.int64)

    @property
    def tokens(self) -> np.ndarray:
        """int64 [S, N, E]: choices per step, layer and expert, before capacity."""
        return np.array(self._tokens, dtype=np.int64)

    @property
    def dropped(self) -> np.ndarray:
        """int64 [S, N]: choices without a seat."""
        return np.array(self._dropped, dtype=np.int64)

    def max_violation(self) -> np.ndarray:
        """float64 [S, N]: MaxVio of every step and layer; 0 where nothing was routed."""
        load = self.tokens.astype(np.float64)
        mean = load.mean(axis=2)
        return np.divide(load.max(axis=2, initial=0.0), mean, out=np.ones_like(mean), where=mean > 0) - 1.0
