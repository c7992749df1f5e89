"""The whole chain in miniature: the bundled 198 documents, a sentence model of kilobytes, a vocabulary of 600."""

from __future__ import annotations

import json
from pathlib import Path

from dataforge.recipe import load_recipe, run_recipe
from dataforge.stage import Run
from dataforge.workspace import Artifact, Workspace

RECIPE = """
name = {name}

[ingest]
paths = [{corpus}]
holdout = 0.08

[dedup]

[embed]
embedder = "static"
model = {model}
dimensions = 8

[cluster]
num_clusters = 6
seed = 1

[train-tokenizer]
vocab_size = 600

[tokenize]

[plan]
num_draws = 300
seed = 3

[pack]
row_length = 64

[train]
steps = 12
global_batch = 4
warmup_steps = 2
baselines = true
model = {{ hidden_size = 32, num_layers = 2, num_heads = 2, num_kv_heads = 1, num_experts = 4, expert_size = 32 }}
"""


def write_recipe(folder: Path, corpus: Path, model: Path, *, name: str = "tiny", more: str = "") -> Path:
    """Write the miniature recipe into `folder`."""
    text = RECIPE.format(name=json.dumps(name), corpus=json.dumps(str(corpus)), model=json.dumps(str(model)))
    path = folder / "mini.toml"
    path.write_text(text + more, "utf-8")
    return path


def make_chain(
    workspace: Path, recipe: Path, *, until: str | None = None, run: Run | None = None
) -> dict[str, Artifact]:
    """Make the recipe; step -> artifact."""
    return run_recipe(Workspace(workspace), load_recipe(recipe), until=until, run=run)
