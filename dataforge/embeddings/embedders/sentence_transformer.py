"""`sentence-transformers`: any local model of that library, by default the MiniLM that ships inside a package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from dataforge.embeddings.embedders.embedder import EmbedConfig, device_class, embedders
from dataforge.embeddings.embedders.model_files import folder_of, model_files, model_folder
from dataforge.embeddings.embedders.torch_threads import torch_threads
from dataforge.errors import ConfigError, MissingDependency
from dataforge.stage import Inputs, Run
from dataforge.workspace import Workspace

_CHARS_PER_TOKEN = 8


@dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """What is read and how it is batched. Every field is part of the id."""

    max_tokens: int = 256
    """Tokens read, special tokens included, from the start of the document."""
    max_chars: int = 256 * _CHARS_PER_TOKEN
    """Characters read: the tokenizer never sees the rest of a long document."""
    batch_tokens: int = 8192
    """Most padded tokens in a batch."""
    window_documents: int = 2048
    """Documents that are sorted by length together."""


@dataclass(frozen=True)
class SentenceTransformerEmbedder:
    """A model folder, run in batches of documents of about one length."""

    settings: TransformerSettings
    model: str | None
    device: str = "cpu"
    num_threads: int = 1

    def inputs(self, workspace: Workspace, run: Run) -> dict[str, Any]:
        return {"model": model_files(workspace, model_folder(self.model))}

    def environment(self) -> dict[str, Any]:
        names = ("numpy", "tokenizers", "torch", "transformers", "sentence-transformers")
        libraries = {name: version(name) for name in names}
        return {"device": device_class(self.device), "threads": self.num_threads, **libraries}

    def open(self, inputs: Inputs) -> SentenceTransformerEncoder:
        try:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging
        except ImportError as error:
            raise MissingDependency(
                "the package `sentence-transformers` is not installed",
                hint="pip install 'dataforge-lm[embeddings]', or use the embedder `static`",
            ) from error
        logging.disable_progress_bar()
        folder = str(folder_of(inputs["model"]))
        model = SentenceTransformer(folder, device=self.device, local_files_only=True, trust_remote_code=False)
        return SentenceTransformerEncoder(model, self.settings, self.num_threads)


class SentenceTransformerEncoder:
    """An opened model. A row depends on its batch in the last bits, so batches are composed by a fixed rule."""

    def __init__(self, model: Any, settings: TransformerSettings, num_threads: int) -> None:
        limit = model.max_seq_length
        if limit is not None and settings.max_tokens > limit:
            raise ConfigError(
                f"max_tokens is {settings.max_tokens:,}, the model reads {limit:,}", hint=f"set max_tokens to {limit}"
            )
        model.max_seq_length = settings.max_tokens
        self.dimensions = int(model.get_embedding_dimension())
        self.max_chars = settings.max_chars
        self.window_documents = settings.window_documents
        self._model, self._settings, self._num_threads = model, settings, num_threads

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        cut = [text[: self.max_chars] for text in texts]
        told = [index for index, text in enumerate(cut) if text.strip()]
        if not told:
            return rows
        tokenized = self._model.tokenizer(
            [cut[index] for index in told], truncation=True, max_length=self._settings.max_tokens
        )
        lengths = [len(ids) for ids in tokenized["input_ids"]]
        with torch_threads(self._num_threads):
            for batch in length_batches(lengths, self._settings.batch_tokens):
                chosen = [told[place] for place in batch]
                rows[chosen] = self._model.encode(
                    [cut[index] for index in chosen], batch_size=len(chosen), show_progress_bar=False
                )
        return rows


def length_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Batches of places, longest texts first, each of at most `batch_tokens` tokens once padded (or of one text).

    >>> list(length_batches([3, 9, 1, 4], batch_tokens=9))
    [[1], [3, 0], [2]]
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


@embedders.register("sentence-transformers")
def sentence_transformer_embedder(config: EmbedConfig) -> SentenceTransformerEmbedder:
    """The `sentence-transformers` embedder of a config. Raises ConfigError for settings it does not have."""
    if config.dimensions is not None:
        raise ConfigError(
            "the embedder `sentence-transformers` has the width of its model", hint="leave out `dimensions`"
        )
    usual = TransformerSettings()
    max_tokens = config.max_tokens or usual.max_tokens
    settings = TransformerSettings(
        max_tokens=max_tokens,
        max_chars=max_tokens * _CHARS_PER_TOKEN,
        batch_tokens=config.batch_tokens or usual.batch_tokens,
    )
    return SentenceTransformerEmbedder(settings, config.model, config.device, config.num_threads)
