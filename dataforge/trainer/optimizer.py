"""AdamW over named parameters, whose state can be written down and put back bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dataforge.errors import TrainingError
from dataforge.trainer.config import TrainConfig

_VOCABULARY = ("embed_tokens", "lm_head")
_KINDS = ("exp_avg", "exp_avg_sq", "step")


class Optimizer:
    """AdamW in three groups: matrices, with decoupled weight decay; norms (one axis), without; and the vocabulary's
    rows (embedding and output projection), without decay and with a learning rate of their own.

    A row of the vocabulary gets a gradient only from steps in which its token occurs, so few that at the matrices' rate
    it hardly leaves its initial place in a short run; that the best rate of embeddings does not fall with the width,
    as that of matrices does, is from muP, arXiv:2203.03466.

    Source: arXiv:1711.05101. One fused update; gradients are clipped by their norm over all parameters.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._max_grad_norm = config.max_grad_norm
        rows = [p for name, p in self._parameters.items() if name in _VOCABULARY]
        matrices = [p for name, p in self._parameters.items() if name not in _VOCABULARY and p.dim() > 1]
        norms = [p for name, p in self._parameters.items() if name not in _VOCABULARY and p.dim() <= 1]
        self._adamw = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay, "ratio": 1.0},
                {"params": norms, "weight_decay": 0.0, "ratio": 1.0},
                {"params": rows, "weight_decay": 0.0, "ratio": config.embedding_lr_ratio},
            ],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            fused=True,
        )

    def clip(self) -> Tensor:
        """Scale the gradients down to the largest norm allowed; returns the norm they had."""
        return torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._max_grad_norm)

    def step(self, lr: float) -> None:
        """Update the parameters with this learning rate and forget the gradients."""
        for group in self._adamw.param_groups:
            group["lr"] = lr * group["ratio"]
        self._adamw.step()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        self._adamw.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The state by name, `exp_avg.<parameter>` and so on; empty before the first step."""
        found = {}
        for name, parameter in self._parameters.items():
            for kind, value in self._adamw.state.get(parameter, {}).items():
                found[f"{kind}.{name}"] = value
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors()` gave.

        Raises:
            TrainingError: the state is of a model with other parameters.
        """
        wanted = {f"{kind}.{name}" for name in self._parameters for kind in _KINDS}
        if set(tensors) != wanted:
            odd = sorted(set(tensors) ^ wanted)
            raise TrainingError(
                f"the optimizer state has {len(tensors):,} tensors, this model needs {len(wanted):,}; {odd[0]} differs",
                hint="resume with the model that the checkpoint was made with",
            )
        for name, parameter in self._parameters.items():
            state = {}
            for kind in _KINDS:
                value = tensors[f"{kind}.{name}"]
                state[kind] = value.to(device=parameter.device).clone()
            self._adamw.state[parameter] = state
