"""Step 6: count the pre-tokens of each documents part, then train a tokenizer on the sum of the counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dataforge import _native
from dataforge.corpus import Documents
from dataforge.errors import ConfigError, NothingToDo
from dataforge.make import make
from dataforge.stage import Inputs, Out, Part, PartOut, Run, part_key
from dataforge.tokenizers.pretokenize import native_pattern, pattern_name
from dataforge.tokenizers.texts import presplit, text_batch
from dataforge.tokenizers.tokenizer import ENCODERS, FILE
from dataforge.tokenizers.train import ALGORITHMS, train
from dataforge.tokenizers.word_counts import WordCounts
from dataforge.workspace import Artifact, Counts, Workspace


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerConfig:
    """What tokenizer to train. Every field is part of its id; `pattern` alone is part of the counts' id."""

    algorithm: str = "scaffold-bpe"
    """`scaffold-bpe`, or `bpe`."""
    vocab_size: int = 32768
    """Ids in all: bytes and special tokens counted, scaffolds not."""
    pattern: str = "gpt2"
    """How text is cut before merging: gpt2, cl100k, llama3, qwen2, o200k, or a regular expression."""
    encoder: str = "bpe"
    """`bpe`: by rank, then demolition where there are scaffolds; `lbpe`: the longest token first."""
    special_tokens: tuple[str, ...] = ("<|endoftext|>",)
    """Names with an id of their own, after the bytes."""
    bos: str | None = None
    """Special token put before each document."""
    eos: str | None = "<|endoftext|>"
    """Special token put after each document."""

    def __post_init__(self) -> None:
        for name, value, known in (("algorithm", self.algorithm, ALGORITHMS), ("encoder", self.encoder, ENCODERS)):
            if value not in known:
                raise ConfigError(f"no {name} is called {value!r}", hint=f"use {' or '.join(known)}")
        if self.vocab_size < 256 + len(self.special_tokens):
            raise ConfigError(
                f"vocab_size must hold 256 bytes and {len(self.special_tokens)} special tokens, got {self.vocab_size}"
            )
        for role in ("bos", "eos"):
            if getattr(self, role) is not None and getattr(self, role) not in self.special_tokens:
                raise ConfigError(
                    f"{role} is {getattr(self, role)!r}, which is no special token", hint="name it there too"
                )
        pattern_name(self.pattern)


@dataclass(frozen=True, kw_only=True)
class CountWordsConfig:
    """How text is cut."""

    pattern: str = "gpt2"
    """A name of `PATTERNS`, or a regular expression."""


@dataclass(frozen=True)
class CountWords:
    """The stage: kind `counts`, for each documents part how often each pre-token occurs in what may be trained on.

    Held-out documents are passed over, and counted in `held_out`; what is counted `in` are the others.
    """

    config: CountWordsConfig
    kind = "counts"
    step = "train-tokenizer"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        parts = Documents(inputs["documents"]).parts
        return [Part(f"{part.stem}.parquet", part_key(self, part.content), {"part": part}) for part in parts]

    def open_worker(self, inputs: Inputs) -> None:
        return None

    def run_part(self, worker: None, part: Part, out: PartOut) -> Counts:
        documents = part.payload["part"]
        counter = _native.WordCounts()
        num_documents = size_bytes = 0
        for _, batch in documents.batches(["text"], held_out=False):
            texts = batch.column(0)
            native = text_batch(texts)
            if native_pattern(self.config.pattern):
                counter.add(native, self.config.pattern, 1)
            else:
                counter.add(text_batch(presplit(texts, self.config.pattern)[0]), "whole", 1)
            num_documents += len(texts)
            size_bytes += native.num_bytes()
        WordCounts(self.config.pattern, *counter.sorted()).save(out.path)
        told = {"documents": num_documents, "bytes": size_bytes}
        held_out = documents.num_documents - num_documents
        return Counts(taken=told, made=dict(told), extra={"held_out": held_out})

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        return Counts()


@dataclass(frozen=True)
class TrainTokenizer:
    """The stage: kind `tokenizers`, one file. Memory: the distinct words of all parts, and one part's beside them."""

    config: TrainTokenizerConfig
    kind = "tokenizers"
    step = "train-tokenizer"
    version = 1

    def split(self, inputs: Inputs) -> list[Part]:
        return []

    def open_worker(self, inputs: Inputs) -> None:
        return None

    def run_part(self, worker: None, part: Part, out: PartOut) -> Counts:
        raise AssertionError("all of this stage is in finish")

    def finish(self, inputs: Inputs, parts: Sequence[dict[str, Any]], out: Out) -> Counts:
        counted: Artifact = inputs["counts"]
        total = _native.WordCounts()
        for told in counted.parts(".parquet"):
            words = WordCounts.load(counted.file(told["path"]))
            total.add_counts(words.data, words.offsets, words.counts)
        if len(total) == 0:
            raise NothingToDo(
                "there is no text to train on", where=counted.ref, hint="all documents are empty or held out"
            )
        config = self.config
        tokenizer = train(
            WordCounts(pattern_name(config.pattern), *total.sorted()),
            algorithm=config.algorithm,
            vocab_size=config.vocab_size,
            special_tokens=config.special_tokens,
            encoder=config.encoder,
            bos=config.bos,
            eos=config.eos,
        )
        with out.write(FILE, rows=tokenizer.vocab_size) as path:
            path.write_bytes(tokenizer.to_bytes())
        named = ("scaffolds", "expanded_size", "distinct_words", "flags_set", "flags_returned")
        report = {name: tokenizer.training[name] for name in (*named, "rarest_token_frequency", "ran_dry")}
        taken = {name: counted.counts["out"][name] for name in ("documents", "bytes")}
        return Counts(taken=taken, made=dict(taken), extra={"vocab_size": tokenizer.vocab_size, **report})


def train_tokenizer(
    workspace: Workspace,
    documents: Artifact,
    *,
    name: str,
    config: TrainTokenizerConfig | None = None,
    run: Run | None = None,
) -> Artifact:
    """A tokenizer trained on the documents that are not held out.

    Args:
        workspace: where the artifacts go: `counts` and `tokenizers`. Counts of unchanged parts are found, not made
            again, also when only the tokenizer's settings change.
        documents: a documents artifact.
        name: the artifacts' name.
        config: what to train.
        run: where to run.
    Returns:
        The `tokenizers` artifact; `Tokenizer.load(artifact.path)` opens it.
    Raises:
        NothingToDo: no text is left to train on.
        TokenizerError: the settings do not fit each other.
    """
    config = config or TrainTokenizerConfig()
    counting = CountWords(CountWordsConfig(pattern=pattern_name(config.pattern)))
    counts = make(workspace, counting, {"documents": documents}, name=name, run=run)
    return make(workspace, TrainTokenizer(config), {"counts": counts}, name=name, run=run)
