"""What one part of each kind asks of Ray. Nothing here changes an id or a byte.

`memory_bytes` is a reservation: Ray places no more parts on a node than its memory holds. It is not a limit: a part
that takes more is stopped only when the whole node runs short, and then made again.
"""

from __future__ import annotations

from dataclasses import dataclass

from dataforge.errors import ConfigError
from dataforge.runners import environment_of
from dataforge.stage import Stage

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one part, or with GPUs one actor, holds while it runs."""

    num_cpus: float = 1.0
    """CPUs reserved; the worker's libraries get as many threads, rounded down, at least one."""
    memory_bytes: int = GIB
    """Memory reserved."""
    num_gpus: float = 0.0
    """GPUs reserved. Above zero, parts go to actors that keep the model between parts."""

    def __post_init__(self) -> None:
        if self.num_cpus <= 0 or self.num_gpus < 0:
            raise ConfigError(
                f"a part needs more than 0 CPUs and no negative GPUs, got {self.num_cpus}, {self.num_gpus}"
            )
        if self.memory_bytes < 1 << 20:
            raise ConfigError(
                f"memory_bytes must be at least 1,048,576, got {self.memory_bytes:,}", hint="it is a number of bytes"
            )

    @property
    def num_threads(self) -> int:
        return max(1, int(self.num_cpus))


BY_KIND = {
    "centroids": Resources(memory_bytes=4 * GIB),  # holds the sample of vectors that k-means is fitted on
    "embeddings": Resources(memory_bytes=3 * GIB),  # torch and a small transformer; static vectors take far less
    "static-vectors": Resources(memory_bytes=3 * GIB),  # a transformer over its whole vocabulary
}
"""Kind of artifact -> what a part takes, where it is not the default."""


def resources_for(
    stage: Stage, num_cpus: float | None = None, memory_bytes: int | None = None, num_gpus: float = 1.0
) -> Resources:
    """What a part of this stage asks for: the table's values unless given.

    What the stage says its bytes depend on (`environment`) also says what it computes with: CPUs are at least its
    threads, and a GPU is asked for if that is its device.

    >>> from types import SimpleNamespace
    >>> on_gpu = SimpleNamespace(kind="embeddings", environment=lambda: {"device": "cuda", "threads": 4})
    >>> resources_for(on_gpu)
    Resources(num_cpus=4.0, memory_bytes=3221225472, num_gpus=1.0)
    >>> resources_for(SimpleNamespace(kind="shards"), num_cpus=0.5)
    Resources(num_cpus=0.5, memory_bytes=1073741824, num_gpus=0.0)
    """
    known, computes_with = BY_KIND.get(stage.kind, Resources()), environment_of(stage) or {}
    return Resources(
        num_cpus=max(known.num_cpus, float(computes_with.get("threads", 1))) if num_cpus is None else num_cpus,
        memory_bytes=known.memory_bytes if memory_bytes is None else memory_bytes,
        num_gpus=num_gpus if computes_with.get("device") == "cuda" else 0.0,
    )
