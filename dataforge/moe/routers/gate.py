"""The linear map from a token to its router logits, in full precision whatever the model's is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataforge.moe.losses import mean_over_tokens

# T tokens  H width  E experts


class LinearGate(nn.Module):
    """`hidden @ weight.T` in float32 (float64 stays float64), autocast or not: Switch's selective precision.

    A bfloat16 input and its float32 copy give identical logits, and with them identical choices.
    """

    def __init__(self, hidden_size: int, num_experts: int, init_scale: float) -> None:
        super().__init__()
        self.init_scale = init_scale
        self.weight = nn.Parameter(torch.empty(num_experts, hidden_size))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Truncated normal with sigma = sqrt(init_scale / fan in), drawn again beyond two sigma (Switch, 2.4)."""
        sigma = math.sqrt(self.init_scale / self.weight.shape[1])
        nn.init.trunc_normal_(self.weight, std=sigma, a=-2 * sigma, b=2 * sigma, generator=generator)

    def forward(self, hidden_TH: Tensor) -> Tensor:
        """Logits [T, E]."""
        wide = torch.promote_types(hidden_TH.dtype, torch.float32)
        with torch.autocast(hidden_TH.device.type, enabled=False):
            return F.linear(hidden_TH.to(wide), self.weight.to(wide))


def choose(scores_TE: Tensor, top_k: int) -> Tensor:
    """The `top_k` experts with the highest scores, int64 [T, K], best first; of equal scores the lowest index wins.

    A stable sort rather than `topk`, whose order among equals is unspecified and differs by device.

    >>> choose(torch.tensor([[1.0, 3.0, 3.0, 3.0]]), 2).tolist()
    [[1, 2]]
    """
    return torch.sort(scores_TE.detach(), dim=1, descending=True, stable=True).indices[:, :top_k].contiguous()


def gate_metrics(logits_TE: Tensor, probs_TE: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
    """Health of the gate over valid tokens: mean entropy of its probabilities over log E, largest logit. Detached."""
    logits_TE, probs_TE = logits_TE.detach(), probs_TE.detach()
    entropy = mean_over_tokens(torch.special.entr(probs_TE).sum(1), valid) / math.log(max(2, probs_TE.shape[1]))
    size_TE = logits_TE.abs() if valid is None else logits_TE.abs().masked_fill(~valid[:, None], 0.0)
    largest = size_TE.amax() if size_TE.numel() else size_TE.new_zeros(())
    return {"gate_entropy": entropy, "logits_max_abs": largest}
