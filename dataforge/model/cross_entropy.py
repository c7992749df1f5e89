"""Cross-entropy of a projection onto the vocabulary, without ever holding all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dataforge.moe.precision import compute_dtype

# T tokens  H width  V vocabulary  C tokens of one piece

_PIECE_BYTES = 8 << 20
"""Logits of one piece: small enough to stay in a CPU's cache between the passes over them."""


def linear_cross_entropy(hidden_TH: Tensor, weight_VH: Tensor, labels_T: Tensor) -> Tensor:
    """The sum over tokens of -log softmax(hidden @ weight.T)[label], a float32 (or float64) scalar in nats.

    Works through the tokens piece by piece and takes both gradients in the same pass, so that memory holds the logits
    of one piece: T * V numbers are neither stored nor read again. The products run in the dtype of `hidden` (under
    autocast in autocast's), everything else in at least float32. Not differentiable twice.
    """
    dtype = compute_dtype(hidden_TH)
    return _LinearCrossEntropy.apply(hidden_TH.to(dtype), weight_VH.to(dtype), labels_T)


def token_nll(hidden_TH: Tensor, weight_VH: Tensor, labels_T: Tensor) -> Tensor:
    """-log softmax(hidden @ weight.T)[label] of each token, [T], in nats. No gradient."""
    nll_T = torch.empty(labels_T.shape, dtype=_wide(hidden_TH.dtype), device=hidden_TH.device)
    with torch.no_grad(), torch.autocast(hidden_TH.device.type, enabled=False):
        for start, end in _pieces(hidden_TH, weight_VH):
            logits_CV = torch.mm(hidden_TH[start:end], weight_VH.to(hidden_TH.dtype).t()).to(nll_T.dtype)
            wanted = logits_CV.gather(1, labels_T[start:end, None])[:, 0]
            nll_T[start:end] = logits_CV.logsumexp(dim=1) - wanted
    return nll_T


def _pieces(hidden_TH: Tensor, weight_VH: Tensor) -> list[tuple[int, int]]:
    num_tokens = hidden_TH.shape[0]
    size = max(16, _PIECE_BYTES // (4 * weight_VH.shape[0])) if hidden_TH.device.type == "cpu" else 4096
    return [(start, min(start + size, num_tokens)) for start in range(0, num_tokens, size)]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, labels_T: Tensor) -> Tensor:
        wide = _wide(hidden_TH.dtype)
        total = torch.zeros((), dtype=wide, device=hidden_TH.device)
        wanted = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(hidden_TH) if wanted else None
        grad_weight = torch.zeros(weight_VH.shape, dtype=wide, device=weight_VH.device) if wanted else None
        with torch.autocast(hidden_TH.device.type, enabled=False):
            for start, end in _pieces(hidden_TH, weight_VH):
                hidden_CH, label_C1 = hidden_TH[start:end], labels_T[start:end, None]
                logits_CV = torch.mm(hidden_CH, weight_VH.t()).to(wide)
                label_logit_C1 = logits_CV.gather(1, label_C1)
                top_C1 = logits_CV.amax(dim=1, keepdim=True)
                exp_CV = logits_CV.sub_(top_C1).exp_()
                sum_C1 = exp_CV.sum(dim=1, keepdim=True)
                total += (sum_C1.log() + top_C1 - label_logit_C1).sum()
                if grad_hidden is None or grad_weight is None:
                    continue
                grad_CV = exp_CV.div_(sum_C1)
                grad_CV.scatter_add_(1, label_C1, torch.full_like(sum_C1, -1.0))  # one place a line: no two adds meet
                narrow_CV = grad_CV.to(hidden_TH.dtype)
                torch.mm(narrow_CV, weight_VH, out=grad_hidden[start:end])
                if narrow_CV.dtype == wide:
                    grad_weight.addmm_(narrow_CV.t(), hidden_CH)
                else:
                    grad_weight += torch.mm(narrow_CV.t(), hidden_CH)
        ctx.grads = (grad_hidden, grad_weight)
        ctx.dtype = weight_VH.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.grads
        return grad_hidden * grad.to(grad_hidden.dtype), (grad_weight * grad).to(ctx.dtype), None
