"""The learning rate of each step."""

from __future__ import annotations

import math


def learning_rate(step: int, *, peak: float, num_steps: int, warmup_steps: int, final_ratio: float) -> float:
    """The learning rate of step `step` (from 1 to `num_steps`): a straight line up to `peak`, then half a cosine down.

    The warm-up's last step has `peak`, the run's last step `final_ratio * peak`.

    >>> [learning_rate(s, peak=1.0, num_steps=6, warmup_steps=2, final_ratio=0.0) for s in (1, 2, 4, 6)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if step <= warmup_steps:
        return peak * step / warmup_steps
    share = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    return peak * round(final_ratio + (1 - final_ratio) * cosine, 12)
