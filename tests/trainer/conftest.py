import importlib.util
import sys
from pathlib import Path

import pytest
import torch


def _load():
    name = "dataforge_tests_toy_rows"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "toy_rows.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toy():
    """The module `toy_rows`: a loader in memory, documents, and a small run."""
    return _load()


@pytest.fixture(autouse=True)
def one_thread():
    """Tests share few cores with others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
