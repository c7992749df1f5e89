from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sentence model of some kilobytes."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-model"))
