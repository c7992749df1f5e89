"""The decoder: embeddings, pre-norm blocks of attention and feed-forward, and the loss on top."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataforge import seeds
from dataforge.model.attention import Attention, document_mask
from dataforge.model.config import ModelConfig
from dataforge.model.cross_entropy import linear_cross_entropy
from dataforge.model.documents import DocumentLayout, one_document
from dataforge.model.rope import rotation
from dataforge.moe import MoELayer, StepContext
from dataforge.moe.precision import compute_dtype

# B rows  L positions  H width  V vocabulary  T = B * L tokens


@dataclass(frozen=True, slots=True)
class Hidden:
    """What the last block gives, before the projection onto the vocabulary."""

    hidden: Tensor
    """[B, L, H], normed."""
    losses: Mapping[str, Tensor]
    """Routers' losses by name, coefficients in, summed over the MoE layers. Empty for a dense model."""
    metrics: Mapping[str, Tensor]
    """Routers' metrics by name, stacked over the MoE layers, detached. Empty for a dense model."""


class RMSNorm(nn.Module):
    """x over its root mean square, times a learned scale. Source: arXiv:1910.07467."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class DenseFeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)). Source: arXiv:2002.05202."""

    def __init__(self, hidden_size: int, ffn_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(2 * ffn_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(hidden_size, ffn_size))

    def reset_parameters(self, generator: torch.Generator, std: float, out_scale: float) -> None:
        """Draw all weights from a normal distribution of `std`, `down_proj` times `out_scale`."""
        with torch.no_grad():
            self.gate_up_proj.normal_(0.0, std, generator=generator)
            self.down_proj.normal_(0.0, std * out_scale, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = F.linear(x, self.gate_up_proj).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.down_proj)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), the feed-forward dense or a Mixture of Experts."""

    def __init__(self, config: ModelConfig, layer: int, seed: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        out_scale = 1 / math.sqrt(2 * config.num_layers)
        self.self_attn.reset_parameters(_generator(seed, layer, "attention"), config.init_std, out_scale)
        self.mlp: MoELayer | DenseFeedForward
        if layer in config.moe_layers:
            self.mlp = MoELayer(config.moe_config(), layer=config.moe_layers.index(layer), seed=seed)
            self.mlp.reset_parameters(seed, std=config.init_std, out_scale=out_scale)
        else:
            assert config.ffn_size is not None
            self.mlp = DenseFeedForward(config.hidden_size, config.ffn_size)
            self.mlp.reset_parameters(_generator(seed, layer, "feed-forward"), config.init_std, out_scale)

    def forward(
        self,
        x_BLH: Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        token_ids_T: Tensor,
        valid_T: Tensor | None,
        context: StepContext | None,
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        x_BLH = x_BLH + self.self_attn(self.input_layernorm(x_BLH), turn, mask)
        normed_BLH = self.post_attention_layernorm(x_BLH)
        if isinstance(self.mlp, DenseFeedForward):
            return x_BLH + self.mlp(normed_BLH), {}, {}
        y_TH, losses, metrics = self.mlp(normed_BLH.flatten(0, 1), token_ids_T, valid=valid_T, context=context)
        return x_BLH + y_TH.view_as(x_BLH), losses, metrics


class Decoder(nn.Module):
    """A language model over rows of token ids.

    `decoder(token_ids)` gives logits; `decoder.loss(...)` is what training calls, which never holds all logits. Initial
    weights are a function of (config, seed), drawn on the CPU name by name: the same on every device, and global
    randomness is neither read nor moved.

    >>> config = ModelConfig(vocab_size=11, hidden_size=8, num_layers=2, num_heads=2, num_experts=4, expert_size=8)
    >>> Decoder(config)(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 11])
    """

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.layers = nn.ModuleList(Block(config, layer, seed) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.lm_head = None if config.tie_embeddings else nn.Parameter(torch.empty_like(self.embed_tokens))
        with torch.no_grad():
            self.embed_tokens.normal_(0.0, config.init_std, generator=_generator(seed, "embedding"))
            if self.lm_head is not None:
                self.lm_head.normal_(0.0, config.init_std, generator=_generator(seed, "head"))

    @property
    def head(self) -> Tensor:
        """The projection onto the vocabulary, [V, H]: the embedding itself if tied."""
        return self.embed_tokens if self.lm_head is None else self.lm_head

    def hidden(
        self,
        token_ids_BL: Tensor,
        layout: DocumentLayout | None = None,
        *,
        valid: Tensor | None = None,
        context: StepContext | None = None,
    ) -> Hidden:
        """The last block's output for rows of token ids.

        Args:
            token_ids_BL: int64 [B, L].
            layout: which document each position belongs to; None takes each row for one document.
            valid: bool [B, L], False for padding, which no expert sees.
            context: where in the run this pass stands, for routers that draw.
        """
        rows, length = token_ids_BL.shape
        mask = None
        if layout is None:
            layout = one_document(rows, length, token_ids_BL.device)
        else:
            mask = document_mask(layout.context, compute_dtype(self.embed_tokens))
        position = layout.position
        if not self.config.rope_restart:
            position = torch.arange(length, device=token_ids_BL.device).expand(rows, length)
        turn = rotation(position, self.config.head_width, self.config.rope_theta)
        x_BLH = F.embedding(token_ids_BL, self.embed_tokens)
        losses: dict[str, Tensor] = {}
        metrics: dict[str, list[Tensor]] = {}
        valid_T = None if valid is None else valid.reshape(-1)
        for block in self.layers:
            x_BLH, more, told = block(x_BLH, turn, mask, token_ids_BL.reshape(-1), valid_T, context)
            for name, loss in more.items():
                losses[name] = losses[name] + loss if name in losses else loss
            for name, metric in told.items():
                metrics.setdefault(name, []).append(metric)
        stacked = {name: torch.stack(values) for name, values in metrics.items()}
        return Hidden(self.norm(x_BLH), losses, stacked)

    def forward(self, token_ids_BL: Tensor, layout: DocumentLayout | None = None) -> Tensor:
        """Logits [B, L, V]."""
        return F.linear(self.hidden(token_ids_BL, layout).hidden, self.head)

    def loss(
        self,
        token_ids_BL: Tensor,
        labels_BL: Tensor,
        layout: DocumentLayout | None = None,
        *,
        context: StepContext | None = None,
    ) -> tuple[Tensor, Hidden]:
        """The summed cross-entropy in nats over all B * L labels, and the pass that it came from."""
        passed = self.hidden(token_ids_BL, layout, context=context)
        nll = linear_cross_entropy(passed.hidden.flatten(0, 1), self.head, labels_BL.reshape(-1))
        return nll, passed

    def num_parameters(self, *, active: bool = False) -> int:
        """How many parameters there are, or with `active` how many one token uses: K of E experts, one embedding."""
        total = sum(parameter.numel() for parameter in self.parameters())
        if not active:
            return total
        for block in self.layers:
            if isinstance(block.mlp, MoELayer):
                experts = sum(parameter.numel() for parameter in block.mlp.experts.parameters())
                total -= experts - experts * block.mlp.router.top_k // self.config.num_experts
        return total if self.lm_head is None else total - self.embed_tokens.numel() + self.config.hidden_size


def _generator(seed: int, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(seeds.derive(seed, "decoder", *names) >> 1)
