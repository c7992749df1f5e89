"""Losses that keep a router healthy. Each returns an unweighted scalar; coefficients live in the router's options."""

from __future__ import annotations

import torch
from torch import Tensor

# T tokens  E experts


def load_balance(probs_TE: Tensor, choices_E: Tensor, valid: Tensor | None = None) -> Tensor:
    """Switch's balance loss: E * sum_e f_e P_e, exactly 1 when choices and probabilities are both uniform.

    f_e is the share of choices that fell on expert e, before capacity and without gradient; P_e is the mean
    probability of e over the tokens and carries the gradient. At worst (one expert, probability 1) it is E.

    Args:
        probs_TE: router probabilities, each line summing to 1.
        choices_E: choices per expert, `Routing.choices_per_expert()`.
        valid: bool [T], False for padding.

    >>> load_balance(torch.full((8, 4), 0.25), torch.tensor([2, 2, 2, 2])).item()
    1.0

    Source: Switch Transformers, arXiv:2101.03961, eq. 4-6. Departure: f divides by all choices, so any number of
    choices a token has the same scale.
    """
    num_experts = probs_TE.shape[1]
    share_E = choices_E.to(probs_TE.dtype) / choices_E.sum().clamp(min=1)
    return num_experts * (share_E.detach() * mean_over_tokens(probs_TE, valid)).sum()


def router_z(logits_TE: Tensor, valid: Tensor | None = None) -> Tensor:
    """The mean over tokens of logsumexp(logits)^2, which keeps router logits small enough for low precision.

    Source: ST-MoE, arXiv:2202.08906, eq. 5.
    """
    return mean_over_tokens(logits_TE.logsumexp(dim=1).square(), valid)


def mean_over_tokens(values: Tensor, valid: Tensor | None) -> Tensor:
    """The mean over the first axis of what is valid; 0 (with a graph) where nothing is."""
    if valid is None:
        return values.sum(0) / max(1, values.shape[0])
    weight = valid.to(values.dtype)
    return torch.einsum("t,t...->...", weight, values) / weight.sum().clamp(min=1)
