"""Training: rows in, a Mixture-of-Experts model out.

config       what is trained (its identity), and where
loop         `fit(config)`: steps, resume, guards
optimizer    AdamW by name
schedule     warm-up and cosine
checkpoint   weights, optimizer and cursor on disk, whole or not there
metrics      one JSON line a step
evaluate     bits per byte on held-out documents
baselines    unigram and bigram models of the same rows
progress     a bar, or lines
train        the stage: a rows artifact to a checkpoints artifact
"""

from __future__ import annotations

from dataforge.trainer.checkpoint import Checkpoint
from dataforge.trainer.config import FitConfig, TrainConfig
from dataforge.trainer.evaluate import Evaluation, HeldOut, evaluate
from dataforge.trainer.loop import FitResult, fit

__all__ = ["Checkpoint", "Evaluation", "FitConfig", "FitResult", "HeldOut", "TrainConfig", "evaluate", "fit"]
