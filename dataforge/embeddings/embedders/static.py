"""`static`: a document is the weighted mean of its tokens' vectors. Thousands of documents a second on one CPU core.

A row depends on its own text alone, whatever stands beside it in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dataforge.embeddings.embedders.embedder import EmbedConfig, device_class, embedders
from dataforge.embeddings.embedders.model_files import PACKAGED, model_files, model_folder
from dataforge.embeddings.embedders.static_vectors import MakeStaticVectors, StaticVectorsConfig, open_tokenizer
from dataforge.errors import ConfigError
from dataforge.make import make
from dataforge.stage import Inputs, Run
from dataforge.workspace import Workspace

_CHARS_PER_TOKEN = 8


@dataclass(frozen=True, kw_only=True)
class StaticSettings:
    """What of a document is read. Every field is part of the id."""

    max_tokens: int = 512
    """Tokens read, from the start of the document."""
    max_chars: int = 512 * _CHARS_PER_TOKEN
    """Characters read: the tokenizer never sees the rest of a long document."""


@dataclass(frozen=True)
class StaticEmbedder:
    """Token vectors made once from a sentence encoder (see `static_vectors`), then a look-up and a sum."""

    settings: StaticSettings
    vectors: StaticVectorsConfig
    model: str | None
    device: str = "cpu"
    num_threads: int = 1

    def inputs(self, workspace: Workspace, run: Run) -> dict[str, Any]:
        files = model_files(workspace, model_folder(self.model))
        name = PACKAGED if self.model is None else "static-vectors"
        stage = MakeStaticVectors(self.vectors, self.device, self.num_threads)
        return {"vectors": make(workspace, stage, {"model": files}, name=name, run=run)}

    def environment(self) -> dict[str, Any]:
        # One document is summed by one thread in one order: neither threads nor the device given change a bit.
        return {"device": device_class(), **{name: version(name) for name in ("numpy", "tokenizers")}}

    def open(self, inputs: Inputs) -> StaticEncoder:
        folder = inputs["vectors"].path
        return StaticEncoder.load(folder / "vectors.npy", folder / "vectors.tokenizer.json", self.settings)


class StaticEncoder:
    """A table of weighted token vectors, float32 (V, D), and the tokenizer its rows belong to."""

    window_documents = 1024

    def __init__(self, table_VD: np.ndarray, tokenizer: Any, settings: StaticSettings) -> None:
        self.dimensions = table_VD.shape[1]
        self.max_chars = settings.max_chars
        self._table_VD = table_VD
        self._tokenizer = tokenizer
        tokenizer.enable_truncation(settings.max_tokens)

    @classmethod
    def load(cls, table: Path, tokenizer: Path, settings: StaticSettings) -> StaticEncoder:
        return cls(np.load(table, allow_pickle=False), open_tokenizer(tokenizer), settings)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        cut = [text[: self.max_chars] for text in texts]
        for row, encoding in enumerate(self._tokenizer.encode_batch_fast(cut, add_special_tokens=False)):
            rows[row] = self._table_VD[encoding.ids].sum(axis=0) if encoding.ids else 0.0
        return rows


@embedders.register("static")
def static_embedder(config: EmbedConfig) -> StaticEmbedder:
    """The `static` embedder of a config. Raises ConfigError for settings it does not have."""
    if config.batch_tokens is not None:
        raise ConfigError(
            "the embedder `static` has no `batch_tokens`", hint="leave it out, or use `sentence-transformers`"
        )
    max_tokens = config.max_tokens or StaticSettings.max_tokens
    settings = StaticSettings(max_tokens=max_tokens, max_chars=max_tokens * _CHARS_PER_TOKEN)
    vectors = StaticVectorsConfig(dimensions=config.dimensions or StaticVectorsConfig().dimensions)
    return StaticEmbedder(settings, vectors, config.model, config.device, config.num_threads)
