"""One vector a token, made once from a sentence encoder: run it over its own vocabulary, reduce, weight by frequency.

The idea of a static table distilled from a sentence encoder is model2vec's (MinishLab, 2024), written anew here; the
weights are SIF's (Arora et al., ICLR 2017) with Zipf's law in place of counts; averaging such vectors is competitive
for choosing pre-training data (arXiv:2502.02494). Ours: the token's own output vector between the model's special
tokens instead of a mean over all of them, and ranks for characters, which vocabularies list by code point.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dataforge.embeddings.embedders.embedder import device_class
from dataforge.embeddings.embedders.model_files import folder_of, transformer_folder
from dataforge.embeddings.embedders.torch_threads import torch_threads
from dataforge.errors import ConfigError, MissingDependency
from dataforge.stage import Inputs, Out, Part, PartOut, part_key
from dataforge.workspace import Counts

# V vocabulary  H width of the encoder  D dimensions kept
_BATCH_TOKENS = 256
_ASCII_RANK = 10


@dataclass(frozen=True, kw_only=True)
class StaticVectorsConfig:
    """How token vectors are made. Every field is part of the id."""

    dimensions: int = 256
    """Principal components kept."""
    sif: float = 0.01
    """`a` of the weight a / (a + p) of a token with probability p: smaller mutes common words more."""

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise ConfigError(f"dimensions must be at least 1, got {self.dimensions}")
        if not self.sif > 0:
            raise ConfigError(f"sif must be above 0, got {self.sif}")


@dataclass(frozen=True)
class MakeStaticVectors:
    """The stage: kind `static-vectors`, one part `vectors.npy` (float32, V x D) with the tokenizer beside it."""

    config: StaticVectorsConfig
    device: str = "cpu"
    num_threads: int = 1
    kind = "static-vectors"
    step = "embed"
    version = 1

    def environment(self) -> dict[str, Any]:
        libraries = {name: version(name) for name in ("numpy", "tokenizers", "torch", "transformers")}
        return {"device": device_class(self.device), "threads": self.num_threads, **libraries}

    def split(self, inputs: Inputs) -> list[Part]:
        files = inputs["model"]
        return [Part("vectors.npy", part_key(self, [file.identity() for file in files]), {"files": files})]

    def open_worker(self, inputs: Inputs) -> None:
        return None

    def run_part(self, worker: None, part: Part, out: PartOut) -> Counts:
        folder = transformer_folder(folder_of(part.payload["files"]))
        tokenizer = open_tokenizer(folder / "tokenizer.json")
        tokens = vocabulary(tokenizer)
        kept = np.array([index for index, token in enumerate(tokens) if token is not None], dtype=np.int64)
        with torch_threads(self.num_threads):
            encoder = load_token_encoder(folder, tokenizer, self.device)
            outputs_VH = token_outputs(encoder, kept)
            vectors_VD = reduce_dimensions(outputs_VH, self.config.dimensions)
        weights_V = sif_weights([tokens[index] for index in kept], self.config.sif)
        table_VD = np.zeros((len(tokens), vectors_VD.shape[1]), dtype=np.float32)
        table_VD[kept] = vectors_VD * weights_V[:, None]
        with open(out.path, "wb") as file:
            np.save(file, table_VD, allow_pickle=False)
        tokenizer.save(str(out.attach("tokenizer.json")), pretty=False)
        return Counts(extra={"vocabulary": len(tokens), "tokens_embedded": len(kept)})

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        return Counts()


def open_tokenizer(path: Path) -> Any:
    """A tokenizer of the `tokenizers` package without padding and truncation."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependency(
            "the package `tokenizers` is not installed", hint="pip install 'dataforge-lm[embeddings]'"
        ) from error
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def vocabulary(tokenizer: Any) -> list[str | None]:
    """Tokens by id; None for ids that never carry text: special tokens (but not the unknown token) and `[unusedN]`."""
    told = json.loads(tokenizer.to_str())
    unknown = told["model"].get("unk_token")
    if unknown is None and (unk_id := told["model"].get("unk_id")) is not None:
        unknown = tokenizer.id_to_token(unk_id)
    special = {added["content"] for added in told["added_tokens"] if added["special"]} - {unknown}
    tokens = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]
    return [None if t is None or t in special or t.startswith("[unused") else t for t in tokens]


def load_token_encoder(folder: Path, tokenizer: Any, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from token ids, int64 (n,), to each token's output vector, float32 (n, H), embedded alone."""
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, dtype=torch.float32)
    model = model.to(device).eval()
    around = tokenizer.encode("a")
    special = np.array(around.special_tokens_mask, dtype=bool)
    first = int(np.argmin(special))
    before = [i for i, s in zip(around.ids[:first], special[:first], strict=True) if s]
    after = [i for i, s in zip(around.ids[first:], special[first:], strict=True) if s]

    def outputs(ids: np.ndarray) -> np.ndarray:
        rows = np.empty((len(ids), len(before) + 1 + len(after)), dtype=np.int64)
        rows[:] = [*before, 0, *after]
        rows[:, len(before)] = ids
        batch = torch.from_numpy(rows).to(device)
        with torch.inference_mode():
            hidden = model(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state
        return hidden[:, len(before)].float().cpu().numpy()

    return outputs


def token_outputs(encoder: Callable[[np.ndarray], np.ndarray], ids: np.ndarray) -> np.ndarray:
    """The output vector of each token id, L2-normalised, float32 (V, H). Batches of one fixed size: no padding."""
    batches = [encoder(ids[at : at + _BATCH_TOKENS]) for at in range(0, len(ids), _BATCH_TOKENS)]
    outputs_VH = np.concatenate(batches)
    return outputs_VH / np.maximum(np.linalg.norm(outputs_VH, axis=1, keepdims=True), np.float32(1e-12))


def reduce_dimensions(outputs_VH: np.ndarray, dimensions: int) -> np.ndarray:
    """Rows minus their mean, in their first principal components: float32 (V, D), at most H and V wide.

    The largest entry of each axis is positive, so that the answer does not hang on the sign a solver chose.
    """
    centred_VH = outputs_VH.astype(np.float64) - outputs_VH.mean(axis=0, dtype=np.float64)
    _, axes_HH = np.linalg.eigh(centred_VH.T @ centred_VH)
    axes_HD = axes_HH[:, ::-1][:, : min(dimensions, len(outputs_VH))]
    largest = np.abs(axes_HD).argmax(axis=0)
    axes_HD = axes_HD * np.sign(axes_HD[largest, np.arange(axes_HD.shape[1])])
    return (centred_VH @ axes_HD).astype(np.float32)


def sif_weights(tokens: Sequence[str | None], sif: float) -> np.ndarray:
    """a / (a + p) for each token, p by Zipf's law over the vocabulary's order: float32 (V,).

    Vocabularies list words and pieces by falling frequency, but single characters by code point. Those have no rank of
    their own: ASCII ones count as common as the tenth word, the others as never seen (weight 1).

    >>> sif_weights(["é", "the", "of"], sif=0.1).round(3)
    array([1.   , 0.13 , 0.231], dtype=float32)
    """
    single = np.array([token is not None and len(token) == 1 for token in tokens], dtype=bool)
    ascii_ = np.array([bool(token) and str(token).isascii() for token in tokens], dtype=bool)
    ranks = np.where(single, _ASCII_RANK, np.cumsum(~single))
    total = (1.0 / np.arange(1, max(int((~single).sum()), 1) + 1)).sum()
    p = np.where(single & ~ascii_, 0.0, 1.0 / ranks / total)
    return (sif / (sif + p)).astype(np.float32)
