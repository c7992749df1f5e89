"""The whole chain over the bundled 198 documents in seconds, through a stream if a service is given."""

from __future__ import annotations

import shutil
from pathlib import Path

from tiny_model import make_tiny_model

from dataforge.recipe import Recipe, Serve, load_recipe, run_recipe
from dataforge.workspace import Artifact, Workspace

CORPUS = Path(__file__).parent / "corpus_tiny"
RECIPE = """
name = "mini"
[ingest]
paths = ["corpus_tiny"]
holdout = 0.1
[dedup]
[embed]
embedder = "static"
model = "{model}"
dimensions = 12
[cluster]
num_clusters = 6
[train-tokenizer]
vocab_size = 600
[tokenize]
[plan]
num_tokens = 24_000
max_repeats = 3
[pack]
row_length = 64
[train]
stream = "http"
steps = 20
global_batch = 4
eval_every = 10
warmup_steps = 4
baselines = true
[train.model]
hidden_size = 32
num_layers = 2
num_heads = 2
num_kv_heads = 1
num_experts = 4
expert_size = 32
"""


def whole_recipe(folder: Path) -> Recipe:
    """The recipe in `folder/mini.toml`, beside a copy of the documents and a model of some kilobytes."""
    if not (folder / "mini.toml").exists():
        shutil.copytree(CORPUS, folder / "corpus_tiny")
        model = make_tiny_model(folder / "model")
        (folder / "mini.toml").write_text(RECIPE.format(model=model.as_posix()), encoding="utf-8")
    return load_recipe(folder / "mini.toml")


def make_whole_chain(folder: Path, serve: Serve | None = None) -> tuple[Workspace, dict[str, Artifact]]:
    """The workspace `folder/workspace` with everything the recipe makes, and its artifacts by step."""
    workspace = Workspace(folder / "workspace")
    return workspace, run_recipe(workspace, whole_recipe(folder), serve=serve)
