"""Rotary position embeddings: positions of a row, and turning queries and keys by them."""

from __future__ import annotations

import torch
from torch import Tensor

# B rows  L positions  N heads  D head size


def rotation(position_BL: Tensor, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angles, float32 [B, 1, L, D / 2].

    Angle i of position p is `p * theta ** (-2 i / D)`. Computed in float32 whatever the model's dtype.

    Source: RoFormer, arXiv:2104.09864, section 3.2.2.
    """
    exponent = torch.arange(0, head_size, 2, dtype=torch.float64, device=position_BL.device) / head_size
    frequency = theta**-exponent
    angle = (position_BL[:, None, :, None].to(torch.float64) * frequency).to(torch.float32)
    return angle.cos(), angle.sin()


def rotate(x_BNLD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys turned by their positions, in their own dtype; a score then depends on the distance alone.

    Pairs are (i, i + D / 2), as in Hugging Face's Llama and Qwen weights, not the paper's (2 i, 2 i + 1): the same up
    to a fixed order of the head's columns.
    """
    wide = torch.promote_types(x_BNLD.dtype, cos.dtype)
    first, second = x_BNLD.to(wide).chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_BNLD.dtype)
