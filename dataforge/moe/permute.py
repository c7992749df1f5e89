"""Rows in expert order and back: the two movements of a Mixture-of-Experts layer, each the other's gradient.

A kernel that reads a token once and writes its K rows, and one that sums K rows into a token, can stand in for
`expand` and `combine` without a change elsewhere; here both are plain gathers. Neither adds into memory that another
thread may be adding to, so two runs give the same bits on any device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dataforge.moe.routing import Routing

# T tokens  K choices a token  E experts  N rows (kept pairs)  H width


@dataclass(frozen=True, slots=True)
class RowOrder:
    """Where each kept pair's row lies: by expert, inside an expert by token, then by order of choice."""

    row_TK: Tensor
    """int64 [T, K]: the row of each pair, -1 where the pair is not kept."""
    pair_N: Tensor
    """int64 [N]: the pair (token * K + choice) of each row; the inverse of `row_TK`."""
    ends_E: Tensor
    """int32 [E]: one past the last row of each expert, what `grouped_mm` takes as offsets."""
    full: bool
    """Every pair is kept, so no row is masked."""

    @property
    def num_rows(self) -> int:
        return self.pair_N.numel()

    @property
    def token_N(self) -> Tensor:
        """int64 [N]: the token of each row."""
        return self.pair_N // max(1, self.row_TK.shape[1])


def row_order(routing: Routing) -> RowOrder:
    """The stable order by expert of the kept pairs of `routing`. Reads the device only where pairs are not all kept.

    >>> routing = Routing.from_top_k(torch.tensor([[1], [0], [1]]), torch.ones(3, 1), num_experts=2)
    >>> order = row_order(routing)
    >>> order.row_TK.tolist(), order.ends_E.tolist()
    ([[1], [0], [2]], [1, 3])
    """
    expert_TK = routing.expert if routing.full else torch.where(routing.kept, routing.expert, routing.num_experts)
    by_expert, pair = torch.sort(expert_TK.reshape(-1), stable=True)
    experts = torch.arange(routing.num_experts, device=by_expert.device)
    ends_E = torch.searchsorted(by_expert, experts, right=True, out_int32=True)
    num_rows = pair.numel() if routing.full else int(routing.kept.sum())
    pair_N = pair[:num_rows]
    row = torch.full_like(pair, -1)
    row[pair_N] = torch.arange(num_rows, device=pair.device)
    return RowOrder(row.reshape(expert_TK.shape), pair_N, ends_E, routing.full)


def expand(x_TH: Tensor, order: RowOrder) -> Tensor:
    """Each row's token, [N, H] in expert order. Gradient: `combine`."""
    return _Expand.apply(x_TH, order)


def combine(rows_NH: Tensor, order: RowOrder) -> Tensor:
    """Each token's rows summed in order of choice, [T, H]; exactly zero where a token has none. Gradient: `expand`.

    Weights are not applied here: they are in the rows already (`swiglu_gate`). bfloat16 rows are summed in float32.
    """
    return _Combine.apply(rows_NH, order)


def weights_of_rows(weight_TK: Tensor, order: RowOrder) -> Tensor:
    """Each row's weight, [N]. Gradient: each pair takes its row's, pairs that are not kept take zero."""
    return _WeightsOfRows.apply(weight_TK, order)


def _gather_tokens(x_TH: Tensor, order: RowOrder) -> Tensor:
    return x_TH.index_select(0, order.token_N)


def _sum_rows(rows_NH: Tensor, order: RowOrder) -> Tensor:
    num_tokens, width = order.row_TK.shape
    wide = torch.promote_types(rows_NH.dtype, torch.float32)
    if order.num_rows == 0 or width == 0:
        return rows_NH.new_zeros((num_tokens, rows_NH.shape[1]))
    if order.full:
        total = rows_NH.index_select(0, order.row_TK[:, 0]).to(wide)
        for choice in range(1, width):
            total += rows_NH.index_select(0, order.row_TK[:, choice])
        return total.to(rows_NH.dtype)
    total = torch.zeros(num_tokens, rows_NH.shape[1], dtype=wide, device=rows_NH.device)
    for choice in range(width):
        row_T = order.row_TK[:, choice]
        # Masked by choice, not by a product with zero: a row that is not a number must not reach another token.
        total += rows_NH.index_select(0, row_T.clamp(min=0)).masked_fill_((row_T < 0)[:, None], 0)
    return total.to(rows_NH.dtype)


class _Expand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TH: Tensor, order: RowOrder) -> Tensor:
        ctx.order = order
        return _gather_tokens(x_TH, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NH: Tensor) -> tuple[Tensor, None]:
        return _sum_rows(grad_NH, ctx.order), None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_NH: Tensor, order: RowOrder) -> Tensor:
        ctx.order = order
        return _sum_rows(rows_NH, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TH: Tensor) -> tuple[Tensor, None]:
        return _gather_tokens(grad_TH, ctx.order), None


class _WeightsOfRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_TK: Tensor, order: RowOrder) -> Tensor:
        ctx.order = order
        return weight_TK.reshape(-1).index_select(0, order.pair_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None]:
        row_TK = ctx.order.row_TK
        grad = grad_N.new_zeros(row_TK.numel())
        grad[ctx.order.pair_N] = grad_N
        return grad.reshape(row_TK.shape), None
