"""Fix torch's threads for a while: results must not hang on how many cores a machine has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """torch computes with `num_threads` threads inside the block, as before after it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
