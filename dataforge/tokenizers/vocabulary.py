"""A vocabulary: which bytes each id stands for and which merges lead there. Sound once made; plain data, one JSON file.

Ids 0..N-1 are the model's: the bytes, the special tokens and the merges that are not scaffolds, in order of creation
where we trained, as they were where the vocabulary was imported. Scaffolds have the ids from N on, never emitted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dataforge.errors import TokenizerError
from dataforge.tokenizers.pretokenize import pattern_name
from dataforge.workspace.content import canonical_json

FORMAT = 1
SPLITTER_VERSION = 1
"""Raised when a named pattern cuts some text otherwise than before (Unicode 18.0)."""
ENCODER_VERSION = 1
"""Raised when an encoder gives other ids for some text than before."""
TIE_BREAK_VERSION = 1
"""Order among equal frequencies in training: returns before merges, lower left id, lower right id."""

MOST_IDS = 1_000_000
MOST_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens, merges in order of rank, special tokens and the pattern that cuts text before them.

    Raises:
        TokenizerError: the parts contradict each other; nothing unsound can be made.
    """

    pattern: str
    """A name of `pretokenize.PATTERNS`, or a regular expression."""
    num_model_ids: int
    """N: ids the model sees, special tokens included, scaffolds not. Some may not be in use."""
    merges: np.ndarray
    """int32, shape (merges, 3): left, right and own id, in order of rank (E order). Each id is made by one merge at
    most."""
    special_tokens: Mapping[str, int] = field(default_factory=dict)
    byte_ids: Sequence[int] = tuple(range(256))
    num_scaffolds: int = 0
    spelled: Mapping[int, bytes] = field(default_factory=dict)
    """Tokens no merge of lower rank spells out (in imported vocabularies): only the longest-first encoder, or
    `whole_words_first`, can emit those without any merge."""
    whole_words_first: bool = False
    """A pre-token that is a token becomes that token, merges or not (tiktoken; `ignore_merges` in tokenizer.json)."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """What training reported. Not part of the fingerprint: it decides no id."""

    def __post_init__(self) -> None:
        pattern_name(self.pattern)
        _ = self.tokens

    @property
    def num_ids(self) -> int:
        """Model ids and scaffolds: len(E) where every id is in use."""
        return self.num_model_ids + self.num_scaffolds

    @cached_property
    def in_text(self) -> np.ndarray:
        """Which ids text can become, uint8, shape (num_ids,): not the special tokens, not unused ids."""
        used = np.array([token != b"" for token in self.tokens], dtype=np.uint8)
        used[list(self.special_tokens.values())] = 0
        return used

    @cached_property
    def tokens(self) -> list[bytes]:
        """The bytes of each id, scaffolds included; a special token's are its name, those of an unused id empty."""
        _require(256 <= self.num_model_ids <= MOST_IDS, f"a vocabulary of {self.num_model_ids:,} ids cannot be used")
        _require(0 <= self.num_scaffolds <= MOST_IDS, f"{self.num_scaffolds:,} scaffolds cannot be used")
        _require(len(self.byte_ids) == 256, f"{len(self.byte_ids)} of 256 bytes have an id")
        tokens = [b""] * self.num_ids

        def put(token: int, spelling: bytes) -> None:
            _require(0 <= token < self.num_model_ids, f"id {token} is outside a vocabulary of {self.num_model_ids:,}")
            _require(not tokens[token], f"id {token} is given twice")
            _require(bool(spelling), f"id {token} stands for no bytes")
            tokens[token] = spelling

        for byte, token in enumerate(self.byte_ids):
            put(token, bytes([byte]))
        for token, spelling in self.spelled.items():
            _require(len(spelling) > 1, f"id {token} is spelled out though it is one byte")
            put(token, spelling)
        special = set()
        for name, token in self.special_tokens.items():
            put(token, name.encode("utf-8", "surrogatepass"))
            special.add(token)
        self._put_merges(tokens, special)
        return tokens

    def _put_merges(self, tokens: list[bytes], special: set[int]) -> None:
        merged: set[int] = set()
        size = sum(map(len, self.spelled.values()))
        for left, right, token in self.merges.tolist():
            inside = 0 <= left < len(tokens) and 0 <= right < len(tokens) and 0 <= token < len(tokens)
            _require(inside, f"the merge {left} + {right} -> {token} is outside of {len(tokens):,} ids")
            sound = tokens[left] and tokens[right] and not special & {left, right, token}
            _require(bool(sound), f"the merge {left} + {right} -> {token} needs tokens that are not there yet")
            _require(token not in merged, f"id {token} is made by two merges")
            merged.add(token)
            size += len(tokens[left]) + len(tokens[right])
            _require(size <= MOST_BYTES, f"the tokens have more than {MOST_BYTES:,} bytes in all")
            spelling = tokens[left] + tokens[right]
            known = not tokens[token] or (token in self.spelled and tokens[token] == spelling)
            _require(known, f"the merge {left} + {right} does not spell id {token}")
            tokens[token] = spelling
        _require(all(tokens[self.num_model_ids :]), "a scaffold is made by no merge")
        texts = [token for i, token in enumerate(tokens) if token and i not in special]
        _require(len(set(texts)) == len(texts), "two ids stand for the same bytes")
        _require(not (self.num_scaffolds and self.whole_words_first), "scaffolds do not go with `whole_words_first`")

    # -- the file

    def to_json(self) -> dict[str, Any]:
        """Everything that decides ids, and the training report, as plain JSON values."""
        identical = list(self.byte_ids) == list(range(256))
        return {
            "format": FORMAT,
            "pattern": self.pattern,
            "vocab_size": self.num_model_ids,
            "num_scaffolds": self.num_scaffolds,
            "bytes": None if identical else list(self.byte_ids),
            "special_tokens": dict(self.special_tokens),
            "spelled": {str(token): spelling.hex() for token, spelling in sorted(self.spelled.items())},
            "whole_words_first": self.whole_words_first,
            "merges": self.merges.tolist(),
            "training": dict(self.training),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary a file tells of. Raises TokenizerError whatever is wrong with it."""
        try:
            _require(told["format"] == FORMAT, f"the file has format {told['format']!r}, this dataforge reads {FORMAT}")
            merges = np.array(told["merges"], dtype=object).reshape(-1, 3)
            whole = all(type(number) is int and 0 <= number < 2**31 for number in merges.ravel())
            _require(whole, "a merge is not three ids")
            numbers = [told["vocab_size"], told["num_scaffolds"], *told["special_tokens"].values()]
            numbers += told["bytes"] or []
            _require(all(type(number) is int for number in numbers), "an id is not a whole number")
            _require(type(told["whole_words_first"]) is bool, "`whole_words_first` is not true or false")
            _require(isinstance(told["pattern"], str), "the pattern is not a string")
            return cls(
                pattern=told["pattern"],
                num_model_ids=told["vocab_size"],
                merges=merges.astype(np.int32),
                special_tokens=dict(told["special_tokens"]),
                byte_ids=tuple(told["bytes"] or range(256)),
                num_scaffolds=told["num_scaffolds"],
                spelled={int(token): bytes.fromhex(spelling) for token, spelling in told["spelled"].items()},
                whole_words_first=told["whole_words_first"],
                training=dict(told["training"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise TokenizerError(f"the vocabulary cannot be read: {type(problem).__name__}: {problem}") from problem

    def digest(self, **further: Any) -> str:
        """SHA-256 (64 hex) of everything that decides ids: the model, the versions of our code, and `further`."""
        told = {name: value for name, value in self.to_json().items() if name != "training"}
        versions = {"splitter": SPLITTER_VERSION, "encoder_code": ENCODER_VERSION}
        return hashlib.sha256(canonical_json({**told, **versions, **further})).hexdigest()


def _require(sound: bool, what: str) -> None:
    if not sound:
        raise TokenizerError(what)


def read_file(text: bytes) -> dict[str, Any]:
    """The JSON object of a tokenizer file, its checksum compared. Raises TokenizerError."""
    try:
        told = json.loads(text, parse_constant=_refuse_constant)
        stated = told.pop("sha256")
        found = hashlib.sha256(canonical_json(told)).hexdigest()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise TokenizerError(f"this is not a tokenizer file: {type(problem).__name__}: {problem}") from problem
    if stated != found:
        raise TokenizerError(
            f"the file has sha256 {found[:8]}..., it says {str(stated)[:8]}...",
            hint="it was changed or damaged; change a tokenizer through dataforge, or restore the file",
        )
    return told


def write_file(told: Mapping[str, Any]) -> bytes:
    """A tokenizer file: one key a line, its checksum last."""
    sha256 = hashlib.sha256(canonical_json(dict(told))).hexdigest()
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}"
        for name, value in (*told.items(), ("sha256", sha256))
    ]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
