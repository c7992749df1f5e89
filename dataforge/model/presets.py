"""Model shapes by name. A preset leaves the vocabulary to the tokenizer; any other field can be given over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from dataforge.errors import ConfigError
from dataforge.model.config import ModelConfig
from dataforge.registry import unknown

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # 2.8 M parameters with 8,192 token ids, 1.6 M of them for a token: hundreds of steps in minutes on two CPU cores.
    "tiny": {
        "hidden_size": 128,
        "num_layers": 4,
        "num_heads": 4,
        "num_kv_heads": 2,
        "num_experts": 8,
        "expert_size": 128,
    },
    # 114 M parameters with 32,768 token ids, of which a token uses 48 M: an afternoon on one GPU.
    "small": {
        "hidden_size": 512,
        "num_layers": 8,
        "num_heads": 8,
        "num_kv_heads": 4,
        "ffn_size": 2048,
        "num_experts": 16,
        "expert_size": 512,
        "top_k": 4,
        "first_moe_layer": 1,
    },
}


def names() -> list[str]:
    """All presets, sorted."""
    return sorted(PRESETS)


def model_config(preset: str, vocab_size: int, changes: Mapping[str, Any] | None = None) -> ModelConfig:
    """The preset called `preset` for a vocabulary, with `changes` to single fields of ModelConfig.

    Raises:
        UnknownName: no such preset or field; the hint gives the nearest.
        ConfigError: the fields contradict one another.

    >>> model_config("tiny", 8192, {"router": "switch", "top_k": 1}).num_experts
    8
    """
    if preset not in PRESETS:
        raise unknown("model preset", preset, PRESETS)
    settings = {**PRESETS[preset], **(changes or {})}
    if "vocab_size" in (changes or {}):
        raise ConfigError("vocab_size comes from the tokenizer and cannot be changed", where=f"preset {preset}")
    known = [f.name for f in fields(ModelConfig)]
    for name in settings:
        if name not in known:
            raise unknown("model setting", name, known, where=f"preset {preset}")
    try:
        return ModelConfig(vocab_size=vocab_size, **settings)
    except TypeError as error:
        raise ConfigError(f"a model setting has the wrong type: {error}", where=f"preset {preset}") from error
