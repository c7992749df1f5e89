"""Top-k routing: each token goes to the k experts with its highest scores, and none is dropped.

Softmax: Shazeer et al. 2017, arXiv:1701.06538, without the noise. Sigmoid and normalised weights: DeepSeek-V3,
arXiv:2412.19437, section 2.1.2, without its bias. Losses: `dataforge.moe.losses`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dataforge.errors import ConfigError
from dataforge.moe.losses import load_balance, router_z
from dataforge.moe.routers.gate import LinearGate, choose, gate_metrics
from dataforge.moe.routers.router import ROUTERS, RouteInput, Router, RouterConfig
from dataforge.moe.routing import Routing, tokens_per_expert

# T tokens  E experts  K choices a token


@dataclass(frozen=True, kw_only=True, slots=True)
class TopKOptions:
    """Settings of `top_k`."""

    score: str = "softmax"
    """`softmax` over all experts, or `sigmoid` of each logit by itself."""
    normalise: bool = True
    """Divide a token's weights by their sum. With softmax this equals a softmax over the chosen logits alone."""
    scaling_factor: float = 1.0
    """Multiplies the weights (2.5 in DeepSeek-V3)."""
    balance_weight: float = 1e-2
    """Coefficient of the balance loss."""
    z_weight: float = 1e-3
    """Coefficient of the z-loss; it is reported when 0 too."""
    init_scale: float = 0.1
    """s of the gate's initial sigma = sqrt(s / fan in)."""

    def __post_init__(self) -> None:
        if self.score not in ("softmax", "sigmoid"):
            raise ConfigError(f"score must be 'softmax' or 'sigmoid', got {self.score!r}", where="router top_k")
        if self.scaling_factor <= 0 or self.init_scale <= 0:
            raise ConfigError(
                f"scaling_factor and init_scale must be above 0, got {self.scaling_factor} and {self.init_scale}",
                where="router top_k",
            )
        if self.balance_weight < 0 or self.z_weight < 0:
            raise ConfigError(
                f"loss coefficients must not be negative, got {self.balance_weight} and {self.z_weight}",
                where="router top_k",
            )


@ROUTERS.register("top_k")
class TopKRouter(Router):
    """Token choice without capacity. A token's routing depends on nothing but the token."""

    Options = TopKOptions

    def __init__(self, config: RouterConfig, options: TopKOptions) -> None:
        super().__init__(config, options)
        self.normalised = options.normalise and options.scaling_factor == 1.0
        self.loss_weights = {"load_balance": options.balance_weight, "router_z": options.z_weight}
        self.gate = LinearGate(config.hidden_size, config.num_experts, options.init_scale)

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.gate.reset_parameters(generator)

    def route(self, route_input: RouteInput) -> Routing:
        logits_TE = self.gate(route_input.hidden)
        scores_TE = logits_TE.softmax(dim=1) if self.options.score == "softmax" else logits_TE.sigmoid()
        expert_TK = choose(scores_TE, self.top_k) if route_input.replay is None else route_input.replay
        weight_TK = scores_TE.gather(1, expert_TK)
        if self.options.normalise:
            weight_TK = weight_TK / weight_TK.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight_TK.dtype).tiny)
        probs_TE = scores_TE if self.options.score == "softmax" else _shares(scores_TE)
        return Routing.from_top_k(
            expert_TK,
            self.options.scaling_factor * weight_TK,
            num_experts=self.num_experts,
            valid=route_input.valid,
            losses=balance_and_z(logits_TE, probs_TE, expert_TK, route_input.valid),
            metrics=gate_metrics(logits_TE, probs_TE, route_input.valid),
        )


def balance_and_z(logits_TE: Tensor, probs_TE: Tensor, expert_TK: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
    """The two losses of a softmax-like gate, over valid tokens and their choices before capacity."""
    chosen_TK = expert_TK if valid is None else torch.where(valid[:, None], expert_TK, -1)
    choices_E = tokens_per_expert(chosen_TK, logits_TE.shape[1])
    return {"load_balance": load_balance(probs_TE, choices_E, valid), "router_z": router_z(logits_TE, valid)}


def _shares(scores_TE: Tensor) -> Tensor:
    return scores_TE / scores_TE.sum(dim=1, keepdim=True).clamp(min=torch.finfo(scores_TE.dtype).tiny)
