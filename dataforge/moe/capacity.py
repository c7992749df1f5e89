"""Seats: how many tokens an expert takes, and who gets one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# T tokens  K choices a token  E experts


def capacity(num_tokens: int, num_experts: int, top_k: int, factor: float, minimum: int = 1) -> int:
    """Seats per expert, `max(minimum, ceil(factor * top_k * num_tokens / num_experts))`.

    >>> capacity(10, 4, 1, 1.0), capacity(10, 4, 1, 1.25), capacity(0, 4, 1, 1.0, minimum=0)
    (3, 4, 0)
    """
    # Rounded first: 1.1 * 10 / 1 is 11.000000000000002 in binary and must not cost a twelfth seat.
    return max(minimum, math.ceil(round(factor * top_k * num_tokens / num_experts, 6)))


def assign_seats(expert_TK: Tensor, num_experts: int, seats: int) -> Tensor:
    """The seat of every choice, int64 [T, K]; -1 where there is none (no choice, or the expert is full).

    All first choices are seated before any second choice, and so on; inside a level tokens are seated in their order.
    No expert seats more than `seats`, and a choice goes without one only if its expert is full.

    >>> assign_seats(torch.tensor([[0, 1], [0, 1], [0, 1]]), num_experts=2, seats=2).tolist()
    [[0, 0], [1, 1], [-1, -1]]

    Departure from a cumulative sum over a [T, E] one-hot matrix: one stable sort of the level-major queue by expert,
    after which a choice's seat is its distance from the first of its expert. Same seats, memory T * K.
    """
    num_tokens, width = expert_TK.shape
    queue = expert_TK.t().reshape(-1)
    queue = torch.where(queue < 0, num_experts, queue)
    by_expert, order = torch.sort(queue, stable=True)
    first = torch.searchsorted(by_expert, torch.arange(num_experts + 1, device=queue.device))
    rank = torch.arange(queue.numel(), device=queue.device) - first[by_expert]
    seat = torch.empty_like(rank)
    seat[order] = torch.where((rank < seats) & (by_expert < num_experts), rank, -1)
    return seat.reshape(width, num_tokens).t().contiguous()
