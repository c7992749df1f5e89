from __future__ import annotations

import pytest
from whole_chain import make_whole_chain

from dataforge.analysis import Chain
from dataforge.workspace import Artifact, Workspace


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, Artifact]]:
    """A whole small chain and its artifacts by step. Tests only read it."""
    return make_whole_chain(tmp_path_factory.mktemp("analysed"))


@pytest.fixture(scope="session")
def chain(mini: tuple[Workspace, dict[str, Artifact]]) -> Chain:
    """The chain that leads to its checkpoint."""
    return Chain.of(mini[0], mini[1]["train"])
