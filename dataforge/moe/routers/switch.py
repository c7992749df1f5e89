"""Switch routing: each token goes to its one best expert, if that has a seat.  Fedus et al. 2021, arXiv:2101.03961.

From the paper: top-1 softmax weight on the output (section 2.1), capacity and dropped tokens (2.2, eq. 3), balance loss
(eq. 4-6), float32 router (2.4, selective precision), initial scale 0.1 (2.4), multiplicative input jitter (appendix C).
Departures: the z-loss (ST-MoE, arXiv:2202.08906) can be added; top_k above 1 is allowed and seats all first choices
before any second one; jitter comes from a counter, so recomputed activations and resumed runs see the same draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dataforge.errors import ConfigError
from dataforge.moe.capacity import assign_seats, capacity
from dataforge.moe.counter_random import counter_uniform
from dataforge.moe.routers.gate import LinearGate, choose, gate_metrics
from dataforge.moe.routers.router import ROUTERS, RouteInput, Router, RouterConfig
from dataforge.moe.routers.top_k import balance_and_z
from dataforge.moe.routing import Routing

# T tokens  H width  E experts  K choices a token


@dataclass(frozen=True, kw_only=True, slots=True)
class SwitchOptions:
    """Settings of `switch`, named as in the paper."""

    capacity_factor: float = 1.25
    """Seats over an even share, in training."""
    eval_capacity_factor: float = 2.0
    """The same in evaluation."""
    min_capacity: int = 1
    """Fewest seats an expert has, so that tiny batches are not all dropped."""
    jitter: float = 1e-2
    """The router's input is multiplied by uniform numbers in [1 - jitter, 1 + jitter) in training; 0 turns it off."""
    balance_weight: float = 1e-2
    """alpha, coefficient of the balance loss."""
    z_weight: float = 1e-3
    """Coefficient of the z-loss (not in the paper); it is reported when 0 too."""
    init_scale: float = 0.1
    """s of the gate's initial sigma = sqrt(s / fan in)."""

    def __post_init__(self) -> None:
        if min(self.capacity_factor, self.eval_capacity_factor) <= 0 or self.min_capacity < 0:
            raise ConfigError(
                f"capacity factors must be above 0 and min_capacity not below 0, got {self.capacity_factor}, "
                f"{self.eval_capacity_factor} and {self.min_capacity}",
                where="router switch",
            )
        if not 0 <= self.jitter < 1 or self.init_scale <= 0:
            raise ConfigError(
                f"jitter must lie in [0, 1) and init_scale above 0, got {self.jitter} and {self.init_scale}",
                where="router switch",
            )
        if self.balance_weight < 0 or self.z_weight < 0:
            raise ConfigError(
                f"loss coefficients must not be negative, got {self.balance_weight} and {self.z_weight}",
                where="router switch",
            )


@ROUTERS.register("switch")
class SwitchRouter(Router):
    """Top-1 with capacity. What finds no seat is dropped and counted; the layer gives exactly zero for it."""

    Options = SwitchOptions
    default_top_k = 1
    batch_dependent = True

    def __init__(self, config: RouterConfig, options: SwitchOptions) -> None:
        super().__init__(config, options)
        self.loss_weights = {"load_balance": options.balance_weight, "router_z": options.z_weight}
        self.gate = LinearGate(config.hidden_size, config.num_experts, options.init_scale)

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.gate.reset_parameters(generator)

    def route(self, route_input: RouteInput) -> Routing:
        logits_TE = self.gate(self._jittered(route_input))
        probs_TE = logits_TE.softmax(dim=1)
        expert_TK = choose(probs_TE, self.top_k) if route_input.replay is None else route_input.replay
        return Routing.from_top_k(
            expert_TK,
            probs_TE.gather(1, expert_TK),
            num_experts=self.num_experts,
            valid=route_input.valid,
            losses=balance_and_z(logits_TE, probs_TE, expert_TK, route_input.valid),
            metrics=gate_metrics(logits_TE, probs_TE, route_input.valid),
        )

    def plan(self, route_input: RouteInput, routing: Routing) -> Routing:
        valid = route_input.valid
        num_tokens = routing.expert.shape[0] if valid is None else int(valid.sum())
        factor = self.options.capacity_factor if route_input.training else self.options.eval_capacity_factor
        seats = capacity(num_tokens, self.num_experts, self.top_k, factor, self.options.min_capacity)
        return routing.with_dropped(assign_seats(routing.expert, self.num_experts, seats) < 0)

    def _jittered(self, route_input: RouteInput) -> Tensor:
        hidden_TH, jitter = route_input.hidden, self.options.jitter
        if not route_input.training or jitter == 0:
            return hidden_TH
        wide = hidden_TH.to(torch.promote_types(hidden_TH.dtype, torch.float32))
        uniform = counter_uniform(hidden_TH.shape, key=route_input.key("jitter"), device=hidden_TH.device)
        return wide * uniform.mul_(2 * jitter).add_(1 - jitter)
