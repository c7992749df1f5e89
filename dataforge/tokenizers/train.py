"""Training: word counts become a tokenizer, by BPE or by Scaffold-BPE."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dataforge import _native
from dataforge.errors import TokenizerError
from dataforge.tokenizers.texts import Texts
from dataforge.tokenizers.tokenizer import Tokenizer
from dataforge.tokenizers.vocabulary import MOST_IDS, TIE_BREAK_VERSION, Vocabulary
from dataforge.tokenizers.word_counts import WordCounts, count

ALGORITHMS = ("bpe", "scaffold-bpe")

_RETURN, _FLAG = 0, 2


def train(
    texts: Texts | Iterable[str | bytes] | WordCounts,
    *,
    algorithm: str = "scaffold-bpe",
    vocab_size: int = 32768,
    pattern: str = "gpt2",
    special_tokens: Sequence[str] = (),
    num_threads: int | None = None,
    encoder: str = "bpe",
    bos: str | None = None,
    eos: str | None = None,
) -> Tokenizer:
    """A tokenizer with exactly `vocab_size` ids, trained on texts or on word counts.

    Ids: the 256 bytes, the special tokens in the order given, then the merged tokens in order of creation. Scaffolds
    are not among them. The result depends on the texts alone, not on their order or the number of threads.

    Args:
        texts: an iterable of `str` and `bytes`, an Arrow array of strings, or the result of `count`.
        algorithm: `bpe`, or `scaffold-bpe`: tokens that became too rare to deserve an id are only built with.
        vocab_size: ids in all, bytes and special tokens counted: the rows of an embedding matrix.
        pattern: how text is cut before merging; no token crosses a cut. With word counts, the one they were cut by.
        special_tokens: names that get an id of their own; text never becomes one unless asked to.
        num_threads: threads to count with; None for one a core.
        encoder: `bpe` or `lbpe`, what the tokenizer encodes with; it can be changed later.
        bos: special token that begins a text.
        eos: special token that ends a text.
    Returns:
        The tokenizer. Where the texts hold too few pairs for `vocab_size`, it is smaller: a warning says so, and
        `training["ran_dry"]` is true.
    Raises:
        TokenizerError: an unknown algorithm, a vocabulary too small for bytes and special tokens, names that repeat,
            or texts beyond 2^62 bytes or 2^32 symbols in distinct words.

    >>> tokenizer = train(["low lower newest widest"] * 9, vocab_size=262, special_tokens=["<|end|>"])
    >>> tokenizer.vocab[256:]
    [b'<|end|>', b'est', b'low', b' n', b' w', b' low']

    Source: Scaffold-BPE, arXiv:2404.17808 (see `scaffold_bpe` for what it leaves open).
    """
    if algorithm not in ALGORITHMS:
        raise TokenizerError(f"no algorithm is called {algorithm!r}", hint=f"use {' or '.join(ALGORITHMS)}")
    _check_names(special_tokens)
    if not 256 + len(special_tokens) <= vocab_size <= MOST_IDS:
        raise TokenizerError(
            f"a vocabulary of {vocab_size:,} ids cannot hold 256 bytes and {len(special_tokens)} special tokens",
            hint=f"give a `vocab_size` from {256 + len(special_tokens):,} to {MOST_IDS:,}",
        )
    counts = texts if isinstance(texts, WordCounts) else count(texts, pattern=pattern, num_threads=num_threads)
    try:
        left, right, flags, frequency, events, ran_dry = _native.train_merges(
            counts.data, counts.offsets, counts.counts, vocab_size, len(special_tokens), algorithm == "scaffold-bpe"
        )
    except ValueError as problem:
        raise TokenizerError(str(problem), hint="train on fewer texts, or on counts of a sample") from problem

    # From places in E to ids: the model's first, in order, then the scaffolds.
    scaffold = flags.astype(bool)
    num_model_ids = len(flags) - int(scaffold.sum())
    ids = np.where(scaffold, num_model_ids + np.cumsum(scaffold) - 1, np.cumsum(~scaffold) - 1).astype(np.int32)
    pinned = 256 + len(special_tokens)
    merges = np.stack([ids[left], ids[right], ids[pinned:]], axis=1).reshape(-1, 3)
    kinds = events.reshape(-1, 4)[:, 0]
    merged_frequency = frequency[pinned:][~scaffold[pinned:]]
    report: dict[str, Any] = {
        "algorithm": algorithm,
        "tie_break": TIE_BREAK_VERSION,
        "asked_vocab_size": vocab_size,
        "ran_dry": bool(ran_dry),
        "bytes": counts.num_bytes,
        "words": counts.num_words,
        "distinct_words": len(counts),
        "expanded_size": len(flags),
        "scaffolds": int(scaffold.sum()),
        "flags_set": int((kinds == _FLAG).sum()),
        "flags_returned": int((kinds == _RETURN).sum()),
        "rarest_token_frequency": int(merged_frequency.min()) if len(merged_frequency) else 0,
    }
    if ran_dry:
        warnings.warn(
            f"the texts have pairs for {num_model_ids:,} ids only, {vocab_size:,} were asked for", stacklevel=2
        )
    vocabulary = Vocabulary(
        pattern=counts.pattern,
        num_model_ids=num_model_ids,
        merges=merges,
        special_tokens={name: 256 + i for i, name in enumerate(special_tokens)},
        num_scaffolds=int(scaffold.sum()),
        training=report,
    )
    return Tokenizer(vocabulary, encoder=encoder, bos=bos, eos=eos)


def _check_names(special_tokens: Sequence[str]) -> None:
    if isinstance(special_tokens, str):
        raise TokenizerError("special_tokens is one string", hint=f"give a list: [{special_tokens!r}]")
    for i, name in enumerate(special_tokens):
        if not isinstance(name, str) or not name:
            raise TokenizerError(f"special token {i} is {name!r}", hint="give names that are not empty")
        if name in special_tokens[:i]:
            raise TokenizerError(f"the special token {name!r} is given twice", hint="name each one once")
