"""The experts of a layer: SwiGLU feed-forward networks, dropless, run as grouped products."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dataforge.moe.grouped_linear import grouped_linear
from dataforge.moe.permute import combine, expand, row_order, weights_of_rows
from dataforge.moe.precision import compute_dtype
from dataforge.moe.routing import Routing

# T tokens  H width  E experts  I expert size  N rows (kept pairs)


class Experts(nn.Module):
    """E SwiGLU networks `down(silu(gate(x)) * up(x))`; each kept pair of a routing is one row of work, none is dropped.

    Parameters lie as Hugging Face models keep them, so checkpoints interchange without a copy:
    `gate_up_proj` [E, 2I, H] (gate rows first) and `down_proj` [E, H, I].

    The pair's weight multiplies the activation, not the output: `down` is linear, so the sum over a token's rows is the
    same, no expert output is kept for the backward pass, and the weight's gradient is a row product of two tensors that
    the activation's gradient has in hand anyway.
    """

    def __init__(self, num_experts: int, hidden_size: int, expert_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * expert_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden_size, expert_size))

    def reset_parameters(self, generator: torch.Generator, *, std: float | None = None, out_scale: float = 1.0) -> None:
        """Draw all weights, normal with deviation `std` (1 / sqrt(fan in) if None); `down_proj` times `out_scale`."""
        with torch.no_grad():
            for weight, scale in ((self.gate_up_proj, 1.0), (self.down_proj, out_scale)):
                weight.normal_(0.0, scale * (std or 1 / math.sqrt(weight.shape[2])), generator=generator)

    def forward(self, x_TH: Tensor, routing: Routing) -> Tensor:
        """The weighted sum of each token's experts, [T, H] in x's dtype; exactly zero for a token without one."""
        dtype = compute_dtype(x_TH)
        order = row_order(routing)
        x_NH = expand(x_TH.to(dtype), order)
        hidden_N2I = grouped_linear(x_NH, self.gate_up_proj.to(dtype), order.ends_E)
        active_NI = swiglu_gate(hidden_N2I, weights_of_rows(routing.weight, order))
        y_NH = grouped_linear(active_NI, self.down_proj.to(dtype), order.ends_E)
        return combine(y_NH, order).to(x_TH.dtype)


def swiglu_gate(hidden_N2I: Tensor, weight_N: Tensor) -> Tensor:
    """`silu(gate) * up * weight`, [N, I], of rows that hold gate and up side by side.

    Computed in at least float32 and rounded once. One operation with a closed backward pass, so that a kernel pair can
    take its place: it keeps only its inputs.
    """
    return _SwigluGate.apply(hidden_N2I, weight_N)


class _SwigluGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_N2I: Tensor, weight_N: Tensor) -> Tensor:
        ctx.save_for_backward(hidden_N2I, weight_N)
        gate, up = hidden_N2I.to(_wide(hidden_N2I)).chunk(2, dim=1)
        return nn.functional.silu(gate).mul_(up).mul_(weight_N[:, None]).to(hidden_N2I.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NI: Tensor) -> tuple[Tensor, Tensor]:
        hidden_N2I, weight_N = ctx.saved_tensors
        gate, up = hidden_N2I.to(_wide(hidden_N2I)).chunk(2, dim=1)
        grad = grad_NI.to(gate.dtype)
        sigmoid = torch.sigmoid(gate)
        silu = gate * sigmoid
        grad_up = grad * silu  # before the weight: what the weight's own gradient needs
        grad_weight = (grad_up * up).sum(dim=1)
        grad_up.mul_(weight_N[:, None])
        # d silu = sigmoid + silu * (1 - sigmoid)
        slope = sigmoid.add_(silu.mul_(1 - sigmoid))
        grad_gate = slope.mul_(up).mul_(grad).mul_(weight_N[:, None])
        return torch.cat((grad_gate, grad_up), dim=1).to(hidden_N2I.dtype), grad_weight.to(weight_N.dtype)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
