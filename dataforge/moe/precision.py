"""The dtype that products run in."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """Autocast's dtype where autocast is on for the device of `x`, else the dtype of `x`.

    For operations that autocast does not know: they cast their inputs to this.
    """
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
