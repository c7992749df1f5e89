"""One matrix product per expert over rows in expert order, forward and both gradients."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# N rows, in expert order  E experts  I, O sizes in and out


def grouped_linear(x_NI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """`x @ weight[e].T` for the rows of each expert e, [N, O].

    Rows of expert e are those from `ends_E[e - 1]` (0 for the first) up to `ends_E[e]`; experts may have none. On CUDA
    in bfloat16 this is one `grouped_mm` and nothing is read back; else a loop over experts, as fast on a CPU as the
    single products are (and it takes float64, which `grouped_mm` refuses).

    Args:
        ends_E: int32 [E], non-decreasing, the last one exactly N. `grouped_mm` leaves rows past it uninitialised, in
            the output and in the hidden gradient, so callers size their rows exactly.
    """
    assert x_NI.dtype == weight_EOI.dtype, "cast before: grouped_mm knows neither mixed types nor autocast"
    if _has_grouped_mm(x_NI, weight_EOI):
        return F.grouped_mm(x_NI, weight_EOI.transpose(1, 2), offs=ends_E)
    return _GroupedLinear.apply(x_NI, weight_EOI, tuple(ends_E.tolist()))


def _has_grouped_mm(x_NI: Tensor, weight_EOI: Tensor) -> bool:
    aligned = x_NI.shape[1] % 8 == 0 and weight_EOI.shape[1] % 8 == 0  # rows must be multiples of 16 bytes
    return (
        x_NI.is_cuda
        and x_NI.dtype == torch.bfloat16
        and aligned
        and x_NI.shape[0] > 0
        and hasattr(F, "grouped_mm")
        and torch.cuda.get_device_capability(x_NI.device) >= (8, 0)
    )


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_EOI: Tensor, ends: tuple[int, ...]) -> Tensor:
        assert ends[-1] == x_NI.shape[0], "rows past the last expert would stay uninitialised"
        ctx.save_for_backward(x_NI, weight_EOI)
        ctx.ends = ends
        out_NO = x_NI.new_empty(x_NI.shape[0], weight_EOI.shape[1])
        for e, (start, end) in enumerate(pairwise((0, *ends))):
            torch.mm(x_NI[start:end], weight_EOI[e].t(), out=out_NO[start:end])
        return out_NO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_NI, weight_EOI = ctx.saved_tensors
        grad_NO = grad_NO.contiguous()
        grad_x = torch.empty_like(x_NI) if ctx.needs_input_grad[0] else None
        grad_weight = torch.empty_like(weight_EOI) if ctx.needs_input_grad[1] else None
        for e, (start, end) in enumerate(pairwise((0, *ctx.ends))):
            if grad_x is not None:
                torch.mm(grad_NO[start:end], weight_EOI[e], out=grad_x[start:end])
            if grad_weight is not None:
                torch.mm(grad_NO[start:end].t(), x_NI[start:end], out=grad_weight[e])  # zero for an expert without rows
        return grad_x, grad_weight, None
