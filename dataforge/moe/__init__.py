"""Mixture-of-Experts: routers, experts, and the layer that joins them.

routing         which experts each token goes to: the value every router gives
routers/        one paper a file; `routers.names()`, `routers.make(name, config)`
capacity        seats and who gets one
permute         rows in expert order and back
grouped_linear  one product per expert
experts         SwiGLU experts over rows, weights applied inside the activation
precision       the dtype that products run in
losses          balance and z-loss, returned and never stored
load            tokens per expert, MaxVio, entropy, drops
layer           all of it: `MoELayer(config)(x, token_ids=None) -> (y, losses, metrics)`
"""

from __future__ import annotations

from dataforge.moe import routers
from dataforge.moe.experts import Experts
from dataforge.moe.layer import MoEConfig, MoELayer, StepContext
from dataforge.moe.load import LoadHistory, load_entropy, max_violation
from dataforge.moe.routers import RouteInput, Router, RouterConfig
from dataforge.moe.routing import Routing

__all__ = [
    "Experts",
    "LoadHistory",
    "MoEConfig",
    "MoELayer",
    "RouteInput",
    "Router",
    "RouterConfig",
    "Routing",
    "StepContext",
    "load_entropy",
    "max_violation",
    "routers",
]
