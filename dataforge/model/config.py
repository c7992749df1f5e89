"""The shape of a decoder, and how many parameters it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dataforge.errors import ConfigError
from dataforge.moe import MoEConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A decoder-only transformer with dense and Mixture-of-Experts layers. Checks itself; allocates nothing."""

    vocab_size: int
    """Token ids are below it."""
    hidden_size: int
    """Width of the residual stream."""
    num_layers: int
    """Blocks of attention and feed-forward."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int | None = None
    """Key and value heads, each shared by equally many query heads; None is `num_heads`."""
    head_size: int | None = None
    """Width of a head, even; None is `hidden_size / num_heads`."""
    ffn_size: int | None = None
    """Inner width of the dense SwiGLU layers; needed where there are dense layers."""
    num_experts: int = 0
    """Routed experts of an MoE layer; 0 makes the whole model dense."""
    expert_size: int | None = None
    """Inner width of each expert; needed where there are experts."""
    top_k: int | None = None
    """Experts a token goes to; None takes the router's own number."""
    router: str = "top_k"
    """One of `dataforge.moe.routers.names()`."""
    router_options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of that router, by name."""
    first_moe_layer: int = 0
    """Layers before it are dense."""
    moe_every: int = 1
    """From there on, every so-many-th layer is an MoE layer."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    rope_restart: bool = True
    """Positions start at 0 in each document of a row, not only in each row (see `model.rope`)."""
    norm_eps: float = 1e-6
    """Added to the mean square in RMSNorm."""
    tie_embeddings: bool = True
    """The output projection is the embedding."""
    init_std: float = 0.02
    """Standard deviation of initial weights; those that write into the residual stream are divided by
    sqrt(2 * num_layers). Routers have their own."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "moe_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}", where="model")
        if self.head_size is None and self.hidden_size % self.num_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} does not divide into {self.num_heads} heads",
                where="model",
                hint="change `num_heads` or give `head_size`",
            )
        if self.head_width < 2 or self.head_width % 2:
            raise ConfigError(f"rotary embeddings need an even head size, got {self.head_width}", where="model")
        if self.kv_heads < 1 or self.num_heads % self.kv_heads:
            raise ConfigError(
                f"{self.num_heads} query heads cannot share {self.kv_heads} key heads evenly",
                where="model",
                hint="num_kv_heads must divide num_heads",
            )
        if self.num_experts < 0 or self.first_moe_layer < 0:
            raise ConfigError(
                f"num_experts and first_moe_layer must not be negative, got {self.num_experts} and "
                f"{self.first_moe_layer}",
                where="model",
            )
        if self.num_experts and self.expert_size is None:
            raise ConfigError(f"{self.num_experts} experts need an `expert_size`", where="model")
        if len(self.moe_layers) < self.num_layers and (self.ffn_size or 0) < 1:
            dense = self.num_layers - len(self.moe_layers)
            raise ConfigError(f"{dense} of {self.num_layers} layers are dense and need an `ffn_size`", where="model")
        if self.norm_eps <= 0 or self.init_std <= 0 or self.rope_theta <= 1:
            raise ConfigError(
                f"norm_eps and init_std must be above 0 and rope_theta above 1, got {self.norm_eps}, {self.init_std} "
                f"and {self.rope_theta}",
                where="model",
            )
        if self.num_experts:
            self.moe_config()

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def head_width(self) -> int:
        return self.hidden_size // self.num_heads if self.head_size is None else self.head_size

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the layers that have experts."""
        if not self.num_experts:
            return ()
        return tuple(range(self.first_moe_layer, self.num_layers, self.moe_every))

    def moe_config(self) -> MoEConfig:
        """The config of each MoE layer."""
        assert self.expert_size is not None
        return MoEConfig(
            hidden_size=self.hidden_size,
            expert_size=self.expert_size,
            num_experts=self.num_experts,
            top_k=self.top_k,
            router=self.router,
            router_options=self.router_options,
        )
