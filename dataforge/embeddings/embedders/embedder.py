"""What an embedder is: plain data that says what it needs, and opens into something that turns texts into rows."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dataforge.errors import ConfigError
from dataforge.registry import Registry
from dataforge.stage import Inputs, Run
from dataforge.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Which embedder, and the settings that embedders share. None means the embedder's own default."""

    embedder: str = "static"
    """A registered name: `static` (token vectors, fast on CPU) or `sentence-transformers`."""
    model: str | None = None
    """Folder of a local sentence-transformers model; None is the MiniLM that ships inside a package. Its files' content
    counts for the id, not where they lie."""
    max_tokens: int | None = None
    """Tokens of a document that are read, from its start."""
    dimensions: int | None = None
    """Width of the vectors, where the embedder can choose (`static`)."""
    batch_tokens: int | None = None
    """Padded tokens in one batch of a transformer. It changes last bits, so it is part of the id."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:1`. Not part of the id: it is recorded with each part, and parts are not mixed."""
    num_threads: int = 1
    """Threads of each process; recorded like the device. Parts run side by side, so one is usually best."""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "dimensions", "batch_tokens", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if self.device.split(":")[0] not in ("cpu", "cuda"):
            raise ConfigError(f"there is no device {self.device!r}", hint="use cpu, cuda or cuda:N")


class Encoder(Protocol):
    """An opened embedder."""

    dimensions: int
    """Width of a row."""
    max_chars: int
    """Characters of a document that can matter; the rest need not be read."""
    window_documents: int
    """Documents given to one call of `encode`. Fixed, so that batches are composed the same in every run."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 row a text, shape (n, dimensions), any length; all zero where a text says nothing."""


class Embedder(Protocol):
    """How texts become vectors. Instances are pickled to workers: plain data only."""

    @property
    def settings(self) -> Any:
        """A frozen dataclass; all of it is part of the id."""

    def inputs(self, workspace: Workspace, run: Run) -> dict[str, Any]:
        """What it reads besides documents: role -> artifact (made here if need be) or list of raw files."""

    def environment(self) -> dict[str, Any]:
        """What its bytes depend on beyond the id: device class, library versions, threads."""

    def open(self, inputs: Inputs) -> Encoder:
        """Load what it needs, once a process."""


embedders: Registry[Callable[[EmbedConfig], Embedder]] = Registry("embedder")
"""Name -> factory. Another package adds one by an entry point in the group `dataforge.embedders`."""


def device_class(device: str = "cpu") -> str:
    """What kind of device computes: `cuda`, or the CPU's architecture and the widest SIMD extension NumPy found."""
    if device != "cpu":
        return device.split(":")[0]
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    widest = (simd.get("found") or simd.get("baseline") or ["none"])[-1]
    return f"cpu {platform.machine()} {widest}"
