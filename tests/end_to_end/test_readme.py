"""The blocks of the README and of the docs pages are run: a new user types them as they stand."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mini_chain import make_chain, write_recipe

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus_tiny"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def after_the_demo(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder like a checkout after `make demo`, its chain in miniature."""
    folder = tmp_path_factory.mktemp("readme")
    make_chain(folder / "demo" / "workspace", write_recipe(folder, CORPUS, tiny_model, name="tiny"))
    return folder


def run(script: list[str], folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DATAFORGE_")}
    environment["DATAFORGE_WORKSPACE"] = "demo/workspace"
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{script[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_shell_blocks_of_the_readme_work(after_the_demo: Path) -> None:
    rest, trace = blocks(ROOT / "README.md", "bash")
    told = run(["bash", "-euc", rest.replace("8765", str(free_port()))], after_the_demo)
    assert '"plans/even@' in told
    assert "in 6 clusters" in told
    told = run(["bash", "-euc", trace], after_the_demo)
    assert "corpus_tiny/" in told
    assert "because" in told


def test_the_python_block_of_the_readme_works(after_the_demo: Path) -> None:
    (block,) = blocks(ROOT / "README.md", "python")
    run([sys.executable, "-c", block], after_the_demo)


HELD_ELSEWHERE = ("formats.md", "09-serve.md")
"""Pages whose blocks tests/streams/test_formats_doc.py and tests/services/test_page.py run."""
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in HELD_ELSEWHERE]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_blocks_of_a_docs_page_work(page: Path, after_the_demo: Path) -> None:
    for block in blocks(page, "python"):
        run([sys.executable, "-c", block], after_the_demo)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
