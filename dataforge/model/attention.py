"""Grouped-query attention inside documents."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataforge.model.config import ModelConfig
from dataforge.model.rope import rotate

# B rows  L positions  H width  N query heads  G key and value heads  D head size


class Attention(nn.Module):
    """Causal self-attention, N query heads sharing G key and value heads, without biases.

    Source: GQA, arXiv:2305.13245. Parameters are named as in Hugging Face's Llama and Qwen models.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.kv_heads, self.head_size = config.num_heads, config.kv_heads, config.head_width
        width = self.head_size
        self.q_proj = nn.Parameter(torch.empty(self.num_heads * width, config.hidden_size))
        self.k_proj = nn.Parameter(torch.empty(self.kv_heads * width, config.hidden_size))
        self.v_proj = nn.Parameter(torch.empty(self.kv_heads * width, config.hidden_size))
        self.o_proj = nn.Parameter(torch.empty(config.hidden_size, self.num_heads * width))

    def reset_parameters(self, generator: torch.Generator, std: float, out_scale: float) -> None:
        """Draw all weights from a normal distribution of `std`, `o_proj` times `out_scale`."""
        with torch.no_grad():
            for weight in (self.q_proj, self.k_proj, self.v_proj):
                weight.normal_(0.0, std, generator=generator)
            self.o_proj.normal_(0.0, std * out_scale, generator=generator)

    def forward(self, x_BLH: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """The attention's output, [B, L, H]; `mask` from `document_mask`, None where rows are single documents."""
        q_BNLD = rotate(self._heads(F.linear(x_BLH, self.q_proj)), *rotation)
        k_BGLD = rotate(self._heads(F.linear(x_BLH, self.k_proj)), *rotation)
        v_BGLD = self._heads(F.linear(x_BLH, self.v_proj))
        shared = self.kv_heads != self.num_heads
        if shared and mask is not None and x_BLH.is_cuda:
            # With a mask, CUDA shares heads in no kernel but the one that holds all scores: copies are far smaller.
            copies = self.num_heads // self.kv_heads
            k_BGLD, v_BGLD = k_BGLD.repeat_interleave(copies, 1), v_BGLD.repeat_interleave(copies, 1)
            shared = False
        out_BNLD = F.scaled_dot_product_attention(
            q_BNLD,
            k_BGLD,
            v_BGLD,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=shared,
        )
        return F.linear(out_BNLD.transpose(1, 2).flatten(2), self.o_proj)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, self.head_size)).transpose(1, 2)


def document_mask(context_BL: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to the scores, in their dtype: 0 where a position may look, else minus infinity; [B, 1, L, L].

    A position looks at itself and at earlier positions of its own context, so no line is without a place to look.
    """
    length = context_BL.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=context_BL.device).tril()
    seen = (context_BL[:, :, None] == context_BL[:, None, :]) & causal
    mask = torch.zeros(seen.shape, dtype=dtype, device=context_BL.device)
    return mask.masked_fill_(~seen, -math.inf)[:, None]
