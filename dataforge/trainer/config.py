"""What is trained and how (part of a checkpoint's identity), and where and how fast (not part of it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataforge.errors import ConfigError
from dataforge.model import ModelConfig, model_config

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run. Every field is part of the checkpoint's id."""

    preset: str = "tiny"
    """The model's shape, one of `dataforge.model.presets.names()`."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ModelConfig to set over the preset's."""
    steps: int | None = None
    """Optimizer steps; None trains on every row once, the last step as short as it comes."""
    global_batch: int = 8
    """Rows a step."""
    micro_batch: int | None = None
    """Rows of one pass forward and back; gradients of a step's passes add up. None is the whole batch."""
    lr: float = 3e-3
    """Peak learning rate."""
    embedding_lr_ratio: float = 10.0
    """The learning rate of embedding and output projection over that of the matrices."""
    final_lr_ratio: float = 0.1
    """The last step's learning rate over the peak."""
    warmup_steps: int = 20
    """Steps of linear warm-up."""
    beta1: float = 0.9
    """AdamW's memory of the gradient."""
    beta2: float = 0.95
    """AdamW's memory of the squared gradient."""
    eps: float = 1e-8
    """Added to the root of the squared gradient."""
    weight_decay: float = 0.1
    """Decoupled, on matrices; norms and embeddings have none."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm over all parameters."""
    precision: str = "auto"
    """`bfloat16` (products under autocast, weights in float32), `float32`, or `auto`: bfloat16 on a GPU."""
    seed: int = 0
    """Of initial weights and of what routers draw."""
    eval_every: int = 0
    """Steps between evaluations on held-out documents; 0 evaluates after the last step alone."""
    eval_documents: int | None = None
    """Most held-out documents to evaluate on, evenly spaced; None is all."""
    baselines: bool = False
    """Also fit a unigram and an interpolated bigram model on the rows trained on, for comparison (in memory)."""

    def __post_init__(self) -> None:
        for name in ("global_batch", "steps", "micro_batch", "eval_documents"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}", where="training")
        if self.micro_batch is not None and self.micro_batch > self.global_batch:
            raise ConfigError(
                f"micro_batch {self.micro_batch} is more than the global batch of {self.global_batch} rows",
                where="training",
                hint="lower `micro_batch`, or leave it out",
            )
        if self.warmup_steps < 0 or self.eval_every < 0:
            raise ConfigError(
                f"warmup_steps and eval_every must not be negative, got {self.warmup_steps} and {self.eval_every}",
                where="training",
            )
        for name in ("lr", "embedding_lr_ratio", "eps", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}", where="training")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must lie in [0, 1), got {getattr(self, name)}", where="training")
        if not 0 <= self.final_lr_ratio <= 1 or self.weight_decay < 0:
            raise ConfigError(
                f"final_lr_ratio must lie in [0, 1] and weight_decay not below 0, got {self.final_lr_ratio} and "
                f"{self.weight_decay}",
                where="training",
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        self.model_config(vocab_size=1)  # its errors come now, not after the data is there

    def model_config(self, vocab_size: int) -> ModelConfig:
        """The model's shape for a vocabulary."""
        return model_config(self.preset, vocab_size, self.model)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """A training run and where it happens. Only `train` decides what comes out."""

    train: TrainConfig
    folder: Path | str
    """Where checkpoints and metrics go. A run that finds its own checkpoints there goes on from the last one."""
    source: Path | str | None = None
    """A rows artifact's folder or an http(s) URL; None where a loader is handed over."""
    api_key: str | None = None
    """For a URL."""
    vocab_size: int | None = None
    """Token ids are below it. None takes the loader's word."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`: a GPU if there is one."""
    num_threads: int | None = None
    """CPU threads; None leaves them as they are. Another number gives other last bits."""
    checkpoint_every: int = 50
    """Steps between checkpoints; the last step has one always. 0: only the last."""
    keep_last: int = 2
    """Checkpoints to keep."""
    allow_mixed: bool = False
    """Go on with a checkpoint of another device class, library version or thread count."""

    def __post_init__(self) -> None:
        if self.checkpoint_every < 0 or self.keep_last < 1:
            raise ConfigError(
                f"checkpoint_every must not be negative and keep_last at least 1, got {self.checkpoint_every} and "
                f"{self.keep_last}",
                where="training",
            )
        if self.num_threads is not None and self.num_threads < 1:
            raise ConfigError(f"num_threads must be at least 1, got {self.num_threads}", where="training")
