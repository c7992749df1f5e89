"""Who may import whom, and how heavy `import dataforge` is: the arrows of the house, checked on every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dataforge"

GROUND = {"errors", "registry", "seeds", "config", "workspace", "stage", "make", "runners", "forecast"}
NATIVE = {"_native"}
ABOVE = {
    "corpus": GROUND,
    "filters": GROUND | {"corpus"},
    "dedup": GROUND | {"corpus"},
    "embeddings": GROUND | {"corpus"},
    "clusters": GROUND | {"corpus", "embeddings"},
    "plans": GROUND | {"corpus", "clusters", "shards"},
    "tokenizers": GROUND | NATIVE | {"corpus", "plans"},
    "shards": GROUND | NATIVE | {"corpus", "tokenizers"},
    "rows": GROUND | NATIVE | {"corpus", "plans", "tokenizers", "shards"},
    "streams": GROUND | NATIVE | {"corpus", "plans", "tokenizers", "shards", "rows"},
    "kernels": GROUND,
    "moe": GROUND | {"kernels"},
    "model": GROUND | {"kernels", "moe"},
    "surgery": GROUND | {"kernels", "moe", "model"},
    "trainer": GROUND | {"corpus", "plans", "tokenizers", "shards", "rows", "streams", "kernels", "moe", "model"},
    "native": set(),
    "analysis": None,
    "steps": GROUND,
    "recipe": None,
    "cli": None,
}
"""Room -> rooms it may import (None: all of dataforge). Files of the ground import the ground alone."""

HEAVY = (
    "torch",
    "triton",
    "faiss",
    "ray",
    "fastapi",
    "transformers",
    "sentence_transformers",
    "matplotlib",
    "sqlalchemy",
)


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Every module a file imports, and whether the import is inside a function."""
    tree = ast.parse(path.read_text("utf-8"))
    inner = {
        id(node)
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(f)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            if node.module == "dataforge":
                found += [(f"dataforge.{alias.name}", id(node) in inner) for alias in node.names]
            else:
                found.append((node.module, id(node) in inner))
    return found


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_imports_only_what_stands_below_it(path: Path) -> None:
    room = room_of(path)
    allowed = GROUND if room in GROUND else ABOVE[room]
    for module, inside_function in imports_of(path):
        first, *rest = module.split(".")
        if first in ("ray", "fastapi", "uvicorn", "starlette"):
            raise AssertionError(f"{path.name} names {first}: dataforge knows no web framework and no Ray")
        if first != "dataforge" or not rest:
            continue
        if rest[0] in ("services", "pipelines"):
            assert room == "cli", f"only dataforge.cli may name {module}"
            assert inside_function, f"{module} may be imported inside a function only"
        elif allowed is not None and rest[0] != room:
            assert rest[0] in allowed, f"{room} may not import {module}"


@pytest.mark.parametrize("shell", ["services", "pipelines"])
def test_the_two_shells_do_not_import_each_other(shell: str) -> None:
    other = {"services": "pipelines", "pipelines": "services"}[shell]
    for path in (ROOT / shell).rglob("*.py"):
        assert not [module for module, _ in imports_of(path) if module.startswith(f"dataforge.{other}")]


@pytest.mark.parametrize(
    "module", ["dataforge", "dataforge.cli", "dataforge.recipe", "dataforge.streams", "dataforge.tokenizers"]
)
def test_importing_is_light(module: str) -> None:
    code = f"import {module}, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.strip() == "[]"


def test_no_file_is_named_after_nothing() -> None:
    for folder in (PACKAGE, ROOT / "services", ROOT / "pipelines"):
        for path in folder.rglob("*"):
            assert path.stem not in ("utils", "common", "helpers", "base", "manager", "misc"), path


def test_no_file_names_a_path_of_one_machine() -> None:
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "services").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]:
        text = path.read_text("utf-8")
        assert "/home/" not in text, path
        assert "/work/" not in text, path
