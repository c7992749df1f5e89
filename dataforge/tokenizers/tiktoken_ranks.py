"""tiktoken's rank files: one token a line, base64 and rank; the rank is the id.

tiktoken merges any two neighbours whose joined bytes are a token, the lowest rank first, and takes a pre-token that is
a token as it is. Inside the bytes of a token nothing but shorter tokens can have been formed before it, so at most one
pair can make it: what those leave of its bytes. These pairs are the merges here; a token that no pair can make (in
rank files that were edited by hand) is kept with its bytes, and whole pre-tokens are looked up first as tiktoken does.
Ids are therefore the same for every rank file and every text that tiktoken accepts.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dataforge import _native
from dataforge.errors import TokenizerError
from dataforge.tokenizers.pretokenize import pattern_name
from dataforge.tokenizers.tokenizer import Tokenizer
from dataforge.tokenizers.vocabulary import MOST_IDS, Vocabulary


def from_ranks(
    ranks: Mapping[bytes, int] | Path | str, pattern: str, special_tokens: Mapping[str, int] | Sequence[str] = ()
) -> Tokenizer:
    """The tokenizer that gives tiktoken's ids.

    Args:
        ranks: token bytes -> rank, or the path of a `.tiktoken` file.
        pattern: a name (`gpt2`, `cl100k`, `o200k` ...) or the regular expression.
        special_tokens: name -> id; or names, which get the ids after the highest rank.
    Raises:
        TokenizerError: a line is no token and rank, a byte has no token, or ids repeat.
    """
    if not isinstance(ranks, Mapping):
        ranks = read_ranks(ranks)
    for token, rank in ranks.items():
        if not isinstance(token, bytes) or type(rank) is not int or not 0 <= rank < MOST_IDS or not token:
            raise TokenizerError(f"{token!r} -> {rank!r} is no token with a rank", hint="tokens are bytes, ranks ids")
    highest = max(ranks.values(), default=-1)
    if not isinstance(special_tokens, Mapping):
        special_tokens = {name: highest + 1 + i for i, name in enumerate(special_tokens)}
    if not all(type(token) is int for token in special_tokens.values()):
        raise TokenizerError("the id of a special token is not a whole number")
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise TokenizerError(f"{len(missing)} of 256 bytes have no token, the first is {missing[0]}")
    tokens = [b""] * (highest + 1)
    for token, rank in ranks.items():
        if tokens[rank]:
            raise TokenizerError(f"{tokens[rank]!r} and {token!r} both have the rank {rank}")
        tokens[rank] = token
    byte_ids = [ranks[bytes([byte])] for byte in range(256)]
    merges, spelled, all_reached = merges_and_rest(tokens, byte_ids)
    vocabulary = Vocabulary(
        pattern=pattern_name(pattern),
        num_model_ids=max(highest, *special_tokens.values(), 0) + 1 if special_tokens else highest + 1,
        merges=merges,
        special_tokens=dict(special_tokens),
        byte_ids=tuple(byte_ids),
        spelled=spelled,
        whole_words_first=not all_reached,
    )
    return Tokenizer(vocabulary)


def read_ranks(path: Path | str) -> dict[bytes, int]:
    """Token bytes -> rank of a `.tiktoken` file."""
    ranks: dict[bytes, int] = {}
    number = 0
    try:
        for line in Path(path).read_bytes().split(b"\n"):
            number += 1
            if line:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
    except OSError as problem:
        raise TokenizerError(f"the rank file cannot be read: {problem.strerror}", where=str(path)) from problem
    except ValueError as problem:
        raise TokenizerError(f"line {number} is no token and rank: {problem}", where=str(path)) from problem
    return ranks


def merges_and_rest(
    tokens: list[bytes], byte_ids: Sequence[int], pairs: np.ndarray | None = None
) -> tuple[np.ndarray, dict[int, bytes], bool]:
    """The merges that text can reach, the tokens that have to be spelled out, and whether merges reach every token.

    Args:
        tokens: bytes of each id; empty for ids that text cannot become.
        byte_ids: id of each byte.
        pairs: the allowed pairs in order of rank, int32, shape (pairs, 2); None for any, ranked by the token's id.
    Returns:
        merges, int32, shape (merges, 3), in order of rank; token -> bytes of those without a merge, or used by one of
        lower rank than their own; and whether none is without.
    """
    try:
        merges = _native.reachable_merges(tokens, np.array(byte_ids, dtype=np.uint32), pairs).reshape(-1, 3)
    except ValueError as problem:
        raise TokenizerError(str(problem)) from problem
    reached = {*byte_ids, *merges[:, 2].tolist()}
    unreached = [token for token, spelling in enumerate(tokens) if spelling and token not in reached]
    spelled = {token: tokens[token] for token in unreached}
    made = {*byte_ids, *unreached}
    for left, right, token in merges.tolist():
        for child in (left, right):
            if child not in made:
                spelled[child] = tokens[child]
        made.add(token)
    return merges, spelled, not unreached


def write_ranks(tokenizer: Tokenizer, path: Path | str) -> Path:
    """Write the rank file of a tokenizer for tiktoken; special tokens are not in such files, pass them beside it.

    Raises:
        TokenizerError: tiktoken would give other ids. That is so for `lbpe` and for vocabularies with scaffolds
            (no order of pair merges expresses either), and where ids do not ascend with the merges' ranks.
    """
    vocabulary = tokenizer.vocabulary
    refuse_what_is_no_plain_bpe(tokenizer, "a tiktoken rank file")
    tokens = [token if used else b"" for token, used in zip(vocabulary.tokens, vocabulary.in_text, strict=True)]
    merges, _, all_reached = merges_and_rest(tokens, vocabulary.byte_ids)
    if not np.array_equal(merges, vocabulary.merges) or (not all_reached and not vocabulary.whole_words_first):
        raise TokenizerError(
            "tiktoken would give other ids: here the merges' order is not that of the ids",
            hint="use `to_huggingface`, which keeps the order",
        )
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens) if token]
    file = Path(path)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_bytes(b"".join(lines))
    os.replace(beside, file)
    return file


def refuse_what_is_no_plain_bpe(tokenizer: Tokenizer, target: str) -> None:
    """Raise TokenizerError for encoders that a list of pair merges cannot express."""
    if tokenizer.encoder == "lbpe":
        raise TokenizerError(
            f"{target} cannot express longest-first encoding: it takes long tokens straight from the bytes, which no "
            "order of pair merges does",
            hint='`with_encoder("bpe")` can be written, but gives other ids for about 2 % of the words',
        )
    if tokenizer.scaffolds:
        raise TokenizerError(
            f"{target} cannot express demolition: {len(tokenizer.scaffolds):,} scaffolds would have to give way to "
            "their parts after merging",
            hint="train with algorithm='bpe' to write one",
        )
