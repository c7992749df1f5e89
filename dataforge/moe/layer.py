"""A Mixture-of-Experts layer: route, plan, experts, losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dataforge import seeds
from dataforge.errors import ConfigError
from dataforge.moe.experts import Experts
from dataforge.moe.load import load_metrics
from dataforge.moe.routers import RouteInput, RouterConfig, make

# T tokens  H width


@dataclass(frozen=True, kw_only=True, slots=True)
class MoEConfig:
    """One Mixture-of-Experts layer."""

    hidden_size: int
    """H, width of the tokens."""
    expert_size: int
    """I, inner width of each expert."""
    num_experts: int
    """E, experts in the layer."""
    top_k: int | None = None
    """K, experts a token goes to; None takes the router's own number."""
    router: str = "top_k"
    """Name of the router, one of `dataforge.moe.routers.names()`."""
    router_options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of that router, by name."""

    def __post_init__(self) -> None:
        if self.expert_size < 1:
            raise ConfigError(f"expert_size must be at least 1, got {self.expert_size}", where="MoE layer")
        with torch.device("meta"):  # the router's own checks, nothing allocated
            make(self.router, self.router_config)

    @property
    def router_config(self) -> RouterConfig:
        return RouterConfig(
            hidden_size=self.hidden_size,
            num_experts=self.num_experts,
            top_k=self.top_k,
            options=self.router_options,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StepContext:
    """Where in a run a pass stands: what random draws are keyed by. The default is a pass outside any run."""

    seed: int = 0
    step: int = 0
    microbatch: int = 0
    rank: int = 0
    recompute: bool = False


class MoELayer(nn.Module):
    """Tokens to experts and back: `layer(x [T, H], token_ids=None) -> (y [T, H], losses, metrics)`.

    `losses` holds scalars already times their coefficients: add them to the training loss as they are. `metrics` holds
    detached tensors: `load_metrics`, what the router reports, and each loss before its coefficient under its name.
    Nothing is kept on the module between calls.

    The sum over experts is what comes back; the residual connection is the caller's, so a token that every expert
    dropped goes on unchanged.

    >>> layer = MoELayer(MoEConfig(hidden_size=8, expert_size=16, num_experts=4))
    >>> y, losses, metrics = layer(torch.ones(3, 8))
    >>> y.shape, sorted(losses), int(metrics["tokens_per_expert"].sum())
    (torch.Size([3, 8]), ['load_balance', 'router_z'], 6)
    """

    def __init__(self, config: MoEConfig, *, layer: int = 0, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        self.router = make(config.router, config.router_config)
        self.experts = Experts(config.num_experts, config.hidden_size, config.expert_size)
        self.reset_parameters(seed)

    def reset_parameters(self, seed: int, *, std: float | None = None, out_scale: float = 1.0) -> None:
        """Draw all parameters anew from `seed` and the layer's index; global randomness is neither read nor moved.

        The experts' weights have standard deviation `std` (None: 1 / sqrt(fan in)), the outgoing ones x `out_scale`.
        """
        generator = torch.Generator().manual_seed(seeds.derive(seed, "moe", self.layer, "router") >> 1)
        self.router.reset_parameters(generator)
        generator = torch.Generator().manual_seed(seeds.derive(seed, "moe", self.layer, "experts") >> 1)
        self.experts.reset_parameters(generator, std=std, out_scale=out_scale)

    def forward(
        self,
        x_TH: Tensor,
        token_ids: Tensor | None = None,
        *,
        valid: Tensor | None = None,
        context: StepContext | None = None,
        replay: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Route, compute and combine.

        Args:
            x_TH: [T, H].
            token_ids: int [T], vocabulary ids, for routers that look at them.
            valid: bool [T], False for padding: not routed, not counted, output zero.
            context: where in the run this pass stands.
            replay: int64 [T, K], choices to take instead of the router's own.
        """
        if x_TH.dim() != 2 or x_TH.shape[1] != self.config.hidden_size:
            raise ConfigError(
                f"an MoE layer of width {self.config.hidden_size} was given a tensor of shape {tuple(x_TH.shape)}",
                hint="flatten rows and positions into one axis of tokens, [T, H]",
            )
        if self.router.needs_token_ids and token_ids is None:
            raise ConfigError(f"router {self.config.router!r} needs the vocabulary ids", hint="pass `token_ids`")
        context = context or StepContext()
        route_input = RouteInput(
            hidden=x_TH,
            token_ids=token_ids,
            layer=self.layer,
            training=self.training,
            valid=valid,
            step=context.step,
            microbatch=context.microbatch,
            rank=context.rank,
            seed=context.seed,
            recompute=context.recompute,
            replay=replay,
        )
        routing = self.router.plan(route_input, self.router(route_input))
        y_TH = self.router.post_expert(route_input, routing, self.experts(x_TH, routing))
        losses = self.router.finish_aux(routing)
        unweighted = {name: loss.detach() for name, loss in routing.losses.items()}
        return y_TH, losses, {**load_metrics(routing), **routing.metrics, **unweighted}
