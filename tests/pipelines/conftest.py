"""One Ray for all tests of this folder: it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dataforge.pipelines.local_ray import start_local_ray


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """The module `ray`, started with two CPUs and a GPU in name only."""
    ray = start_local_ray(num_cpus=2, num_gpus=1)
    yield ray
    ray.shutdown()
