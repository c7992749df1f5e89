"""What a router is: the interface that every routing paper fits, and the names they are known by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dataforge import seeds
from dataforge.errors import ConfigError
from dataforge.moe.routing import Routing
from dataforge.registry import Registry, unknown

# T tokens  H width  E experts  K choices a token

ROUTERS: Registry[type[Router]] = Registry("router")


@dataclass(frozen=True, kw_only=True, slots=True)
class RouterConfig:
    """The size of a router's task, and the options of the one router it is for."""

    hidden_size: int
    """H, the width of what is routed."""
    num_experts: int
    """E, routed experts in the layer."""
    top_k: int | None = None
    """K, choices a token; None takes the router's own number (1 for `switch`, 2 for `top_k`)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of that router alone, checked by name against its `Options`."""

    def __post_init__(self) -> None:
        if self.hidden_size < 1 or self.num_experts < 1:
            raise ConfigError(f"a router needs a width and experts, got {self.hidden_size} and {self.num_experts}")
        if self.top_k is not None and not 1 <= self.top_k <= self.num_experts:
            raise ConfigError(
                f"top_k must lie between 1 and the {self.num_experts} experts, got {self.top_k}",
                hint="lower `top_k` or raise `num_experts`",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteInput:
    """What a router may look at. Everything that could make two passes differ is in here, by value."""

    hidden: Tensor
    """[T, H], in the model's dtype."""
    token_ids: Tensor | None = None
    """int [T], vocabulary ids, for routers that look at them."""
    layer: int = 0
    """Index among the MoE layers."""
    training: bool = False
    valid: Tensor | None = None
    """bool [T], False for padding, which is neither routed nor counted. None: all are valid."""
    step: int = 0
    microbatch: int = 0
    rank: int = 0
    seed: int = 0
    recompute: bool = False
    """This pass repeats an earlier one for its activations: buffers must not change again."""
    replay: Tensor | None = None
    """int64 [T, K]: take these choices; weights still come from the scores."""

    def key(self, name: str) -> int:
        """The key of the draws called `name` of this pass: equal when it is recomputed, different everywhere else."""
        return seeds.derive(self.seed, name, self.step, self.microbatch, self.layer, self.rank)


class Router(nn.Module):
    """Chooses experts for tokens. Only `route` must be written; a layer calls the hooks in the order they stand here.

    Routers do not communicate in `route` or `plan`; reductions over ranks belong to `finish_aux` and `on_step_end`,
    where every rank arrives in the same order, tokens or not.
    """

    Options: ClassVar[type]
    """Frozen dataclass of the router's own settings, hyper-parameters named as in its paper."""
    default_top_k: ClassVar[int] = 2
    needs_token_ids: ClassVar[bool] = False
    batch_dependent: bool = False
    """A token's routing depends on the other tokens of its batch (capacity, expert choice)."""
    normalised: bool = False
    """The weights of a token that lost no choice sum to 1."""
    loss_weights: Mapping[str, float]
    """Coefficient of each loss that `route` returns."""

    def __init__(self, config: RouterConfig, options: Any) -> None:
        super().__init__()
        self.config = config
        self.options = options
        self.num_experts = config.num_experts
        self.top_k = min(self.default_top_k, config.num_experts) if config.top_k is None else config.top_k
        self.loss_weights = {}

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the initial parameters; a router without any needs none."""

    def route(self, route_input: RouteInput) -> Routing:
        """The choices of every token, before capacity, with their losses (unweighted) and metrics."""
        raise NotImplementedError

    def plan(self, route_input: RouteInput, routing: Routing) -> Routing:
        """What is computed in the end: seats under a capacity, re-routed choices. Dropless routers change nothing."""
        return routing

    def post_expert(self, route_input: RouteInput, routing: Routing, y_TH: Tensor) -> Tensor:
        """The layer's output [T, H], after what the paper adds to the experts' sum."""
        return y_TH

    def finish_aux(self, routing: Routing) -> dict[str, Tensor]:
        """The losses times their coefficients, ready to be added to the training loss."""
        return {name: self.loss_weights[name] * loss for name, loss in routing.losses.items()}

    def on_step_end(self) -> dict[str, Tensor]:
        """Called once after each optimizer step: biases, thresholds, buffers. Returns metrics."""
        return {}

    def forward(self, route_input: RouteInput) -> Routing:
        return self.route(route_input)


def make(name: str, config: RouterConfig | Mapping[str, Any]) -> Router:
    """The router called `name`, its parameters not drawn yet (`reset_parameters`).

    Raises:
        UnknownName: no such router, or an option it does not have; the hint gives the nearest.
        ConfigError: a setting out of range.
    """
    factory = ROUTERS.get(name)
    checked = config
    if not isinstance(checked, RouterConfig):
        checked = _from_mapping(RouterConfig, checked, "setting of a router")
    return factory(checked, _from_mapping(factory.Options, checked.options, f"option of router {name!r}"))


def _from_mapping(cls: type, values: Mapping[str, Any], subject: str) -> Any:
    known = [f.name for f in fields(cls)]
    for key in values:
        if key not in known:
            raise unknown(subject, key, known)
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"a {subject} is missing or of the wrong type: {error}") from error
