"""Rows to stream, and servers of them."""

import pytest
from row_server import serving
from tiny_rows import make_chain

from dataforge.rows import Rows
from dataforge.streams import RemoteConfig

L = 16


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """A small workspace: 300 draws, about 8,900 tokens, 560 rows of 16 tokens."""
    return make_chain(tmp_path_factory.mktemp("streams"))


@pytest.fixture(scope="session")
def artifact(chain):
    """Its rows artifact."""
    return chain.pack(L)


@pytest.fixture(scope="session")
def steady(artifact):
    """A server without faults, for the whole session."""
    with serving(Rows(artifact)) as server:
        yield server


@pytest.fixture
def server(artifact):
    """A server of the test's own."""
    with serving(Rows(artifact)) as server:
        yield server


@pytest.fixture
def hasty():
    """Short waits and small windows, so that faults are over soon and many windows are asked for."""
    return RemoteConfig(
        window_tokens=1000,
        connect_timeout_s=5,
        read_timeout_s=5,
        window_timeout_s=10,
        retry_budget_s=20,
        retry_first_s=0.001,
        retry_most_s=0.01,
    )
