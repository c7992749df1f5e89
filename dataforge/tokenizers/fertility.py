"""How well a tokenizer fits some texts: the figures of its report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dataforge.tokenizers.texts import Texts, text_batch
from dataforge.tokenizers.tokenizer import Tokenizer

LONG_TOKEN_BYTES = 8


@dataclass(frozen=True)
class Fertility:
    """Figures of one tokenizer on one set of texts."""

    num_texts: int
    num_bytes: int
    num_tokens: int
    bytes_per_token: float
    """Compression: more is better; 0 where there is no text."""
    long_token_share: float
    """Share of the tokens that have 8 or more bytes."""
    ids_used: int
    """Different ids in the result."""
    rarest_token_frequency: int
    """Occurrences of the merged token that occurs least, 0 if one does not occur at all."""
    entropy_bits: float
    """Shannon entropy of the ids, bits a token."""
    redundancy: float
    """1 - entropy / log2(vocabulary size)."""
    scaffolds: int
    flags_set: int | None
    """Scaffold flags set in training; None for a tokenizer that was not trained here."""
    flags_returned: int | None
    """Flags undone again by re-entry."""
    longest_tokens: tuple[bytes, ...]
    """The ten longest tokens that occur, longest first, the more frequent before the rarer."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; tokens as text."""
        return {**asdict(self), "longest_tokens": [token.decode("utf-8", "replace") for token in self.longest_tokens]}


def fertility(tokenizer: Tokenizer, texts: Texts, num_threads: int | None = None) -> Fertility:
    """The figures of a tokenizer on texts, encoded as they are: no begin or end tokens.

    Args:
        tokenizer: with the encoder to judge.
        texts: a list of `str` and `bytes`, or an Arrow array of strings; they are encoded at once.
        num_threads: threads to use; None for one a core.

    >>> from dataforge.tokenizers import train
    >>> tokenizer = train(["aaaa aaaa"], vocab_size=259, algorithm="bpe")
    >>> figures = fertility(tokenizer, ["aaaa"])
    >>> figures.num_tokens, figures.bytes_per_token
    (1, 4.0)
    """
    token_ids, _ = tokenizer.encode_batch(texts, num_threads)
    frequency = np.bincount(token_ids, minlength=tokenizer.vocab_size)
    tokens = tokenizer.vocab
    sizes = np.array([len(token) for token in tokens], dtype=np.int64)
    used = np.flatnonzero(frequency)
    share = frequency[used] / max(len(token_ids), 1)
    entropy = float(-(share * np.log2(share)).sum()) if len(used) else 0.0
    merged = np.unique(tokenizer.vocabulary.merges[:, 2])
    merged = merged[merged < tokenizer.vocab_size]
    longest = sorted(used.tolist(), key=lambda token: (-int(sizes[token]), -int(frequency[token]), token))
    num_bytes = text_batch(texts).num_bytes()
    return Fertility(
        num_texts=len(texts),
        num_bytes=num_bytes,
        num_tokens=len(token_ids),
        bytes_per_token=num_bytes / len(token_ids) if len(token_ids) else 0.0,
        long_token_share=float(frequency[sizes >= LONG_TOKEN_BYTES].sum() / max(len(token_ids), 1)),
        ids_used=len(used),
        rarest_token_frequency=int(frequency[merged].min()) if len(merged) else 0,
        entropy_bits=entropy,
        redundancy=1 - entropy / float(np.log2(tokenizer.vocab_size)),
        scaffolds=tokenizer.vocabulary.num_scaffolds,
        flags_set=tokenizer.training.get("flags_set"),
        flags_returned=tokenizer.training.get("flags_returned"),
        longest_tokens=tuple(tokens[token] for token in longest[:10]),
    )
