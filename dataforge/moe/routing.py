"""Which experts each token goes to, and with what weight: the one value every router gives and every layer takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

# T tokens  K most choices any token has  E experts  P pairs


@dataclass(frozen=True, slots=True)
class Routing:
    """A list of (token, expert, weight), kept as a table with one line a token.

    Token choice fills the table; expert choice, hash tables and a varying number of experts leave cells empty (-1) or
    come in through `from_pairs`. Whoever reads it (experts, dispatch, metrics) never asks which paper it came from.
    Losses and metrics travel in it: no router keeps a `last_loss`.
    """

    expert: Tensor
    """int64 [T, K]: the chosen expert, -1 for an empty cell. No expert twice in a line. A dropped choice stays here."""
    weight: Tensor
    """float32 or float64 [T, K], carries the router's gradient; 0 in empty and dropped cells."""
    num_experts: int
    dropped: Tensor | None = None
    """bool [T, K]: choices that found no seat. None: nothing was dropped."""
    full: bool = False
    """Known without looking at the device: every cell holds a choice and none is dropped."""
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars by name, before their coefficients; `Router.finish_aux` weighs them."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Detached, on the device, never synchronised here."""

    @classmethod
    def from_top_k(
        cls,
        expert: Tensor,
        weight: Tensor,
        *,
        num_experts: int,
        valid: Tensor | None = None,
        losses: Mapping[str, Tensor] | None = None,
        metrics: Mapping[str, Tensor] | None = None,
    ) -> Routing:
        """The routing of `expert` [T, K] with `weight` [T, K]; lines where `valid` [T] is False become empty."""
        if valid is not None:
            expert = torch.where(valid[:, None], expert, -1)
            weight = torch.where(valid[:, None], weight, 0.0)
        return cls(expert, weight, num_experts, full=valid is None, losses=losses or {}, metrics=metrics or {})

    @classmethod
    def from_pairs(
        cls,
        token: Tensor,
        expert: Tensor,
        weight: Tensor,
        *,
        num_tokens: int,
        num_experts: int,
        losses: Mapping[str, Tensor] | None = None,
        metrics: Mapping[str, Tensor] | None = None,
    ) -> Routing:
        """The routing of P pairs in any order: expert choice, thresholds, ReLU gates. Reads the device once, for K.

        Within a token the pairs keep the order they came in.

        >>> pairs = [torch.tensor([2, 0, 2]), torch.tensor([0, 1, 1]), torch.tensor([0.5, 1.0, 0.25])]
        >>> Routing.from_pairs(*pairs, num_tokens=3, num_experts=2).expert.tolist()
        [[1, -1], [-1, -1], [0, 1]]
        """
        order = torch.argsort(token, stable=True)
        token, expert, weight = token[order], expert[order], weight[order]
        first = torch.searchsorted(token, torch.arange(num_tokens, device=token.device))
        slot = torch.arange(token.numel(), device=token.device) - first[token]
        width = int(slot.max()) + 1 if token.numel() else 0
        expert_TK = expert.new_full((num_tokens, width), -1).index_put((token, slot), expert)
        weight_TK = weight.new_zeros((num_tokens, width)).index_put((token, slot), weight)
        return cls(expert_TK, weight_TK, num_experts, losses=losses or {}, metrics=metrics or {})

    @property
    def kept(self) -> Tensor:
        """bool [T, K]: cells that an expert will compute."""
        chosen = self.expert >= 0
        return chosen if self.dropped is None else chosen & ~self.dropped

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The kept (token, expert, weight), each [P], by token and then in the order of choice."""
        token, slot = torch.nonzero(self.kept, as_tuple=True)
        return token, self.expert[token, slot], self.weight[token, slot]

    def choices_per_expert(self) -> Tensor:
        """int64 [E]: how many tokens chose each expert, dropped ones included (what balance is judged by)."""
        return tokens_per_expert(self.expert, self.num_experts)

    def num_dropped(self) -> Tensor:
        """int64 scalar: choices that found no seat."""
        return self.expert.new_zeros(()) if self.dropped is None else self.dropped.sum()

    def with_dropped(self, dropped: Tensor) -> Routing:
        """The same routing with these choices (bool [T, K]) dropped: their weight is 0 and takes no gradient."""
        dropped = dropped & (self.expert >= 0)
        if self.dropped is not None:
            dropped = dropped | self.dropped
        weight = torch.where(dropped, torch.zeros_like(self.weight), self.weight)
        return replace(self, weight=weight, dropped=dropped, full=False)

    def problems(self) -> list[str]:
        """What breaks the contract of this value, in words; empty when it is sound. For tests and router authors."""
        found = []
        if self.expert.dtype != torch.int64 or self.weight.dtype not in (torch.float32, torch.float64):
            found.append(f"dtypes are {self.expert.dtype} and {self.weight.dtype}, not int64 and float32 or float64")
        if self.expert.shape != self.weight.shape or self.expert.dim() != 2:
            found.append(f"shapes are {tuple(self.expert.shape)} and {tuple(self.weight.shape)}, not one [T, K]")
            return found
        if bool(((self.expert < -1) | (self.expert >= self.num_experts)).any()):
            found.append(f"an expert is outside [-1, {self.num_experts})")
        ordered = self.expert.sort(dim=1).values
        if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any()):
            found.append("a token chose one expert twice")
        if bool((self.weight < 0).any()) or not bool(torch.isfinite(self.weight).all()):
            found.append("a weight is negative or not finite")
        if bool((self.weight[~self.kept] != 0).any()):
            found.append("an empty or dropped cell has a weight")
        if self.full and not bool(self.kept.all()):
            found.append("called full, but a cell is empty or dropped")
        return found


def tokens_per_expert(expert: Tensor, num_experts: int) -> Tensor:
    """int64 [E]: cells of `expert` [T, K] that name each expert; -1 counts nowhere.

    Counted from a mark per (token, expert) summed over tokens: no atomics and no host read, unlike `bincount`.
    """
    marks = torch.zeros(expert.shape[0], num_experts + 1, dtype=torch.int32, device=expert.device)
    marks.scatter_(1, torch.where(expert < 0, num_experts, expert), 1)
    return marks[:, :num_experts].sum(0)
