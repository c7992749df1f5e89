"""The tokenizer: a vocabulary, a way to encode over it, and which special tokens begin and end a text."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dataforge import _native
from dataforge.errors import TokenizerError
from dataforge.registry import unknown
from dataforge.tokenizers.pretokenize import as_bytes, native_pattern
from dataforge.tokenizers.texts import Texts, presplit, text_batch, threads_of
from dataforge.tokenizers.vocabulary import Vocabulary, read_file, write_file

FILE = "tokenizer.dataforge.json"
ENCODERS = ("bpe", "lbpe")

Allowed = Literal["all"] | Collection[str]


class Tokenizer:
    """Text to token ids and back. Immutable; safe to use from many threads, and to send to other processes.

    Text that looks like a special token is text, unless `allowed_special` names the token. Encoding adds no
    begin or end token by itself: `bos_id` and `eos_id` say which ones a shard writer puts around a document.

    Args:
        vocabulary: tokens and merges.
        encoder: `bpe`, merges by rank over all of E and then, where there are scaffolds, demolition (Scaffold-BPE); or
            `lbpe`, the longest token first over the model's tokens. Ids mean the same either way.
        bos: special token that begins a text, or None.
        eos: special token that ends a text, or None.
    Raises:
        TokenizerError: no such encoder, or `bos` or `eos` is no special token.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, encoder: str = "bpe", bos: str | None = None, eos: str | None = None
    ) -> None:
        if encoder not in ENCODERS:
            raise TokenizerError(f"no encoder is called {encoder!r}", hint="use bpe or lbpe")
        for role, name in (("bos", bos), ("eos", eos)):
            if name is not None and name not in vocabulary.special_tokens:
                raise TokenizerError(
                    f"{role} is {name!r}, which is no special token", hint="name it in `special_tokens` too"
                )
        self.vocabulary = vocabulary
        self.encoder = encoder
        self.bos = bos
        self.eos = eos

    def __repr__(self) -> str:
        scaffolds = f", {self.vocabulary.num_scaffolds:,} scaffolds" if self.vocabulary.num_scaffolds else ""
        return f"Tokenizer({self.vocab_size:,} ids{scaffolds}, {self.encoder}, {self.vocabulary.pattern})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_from_file, (self.to_bytes(),))

    # -- what is in it

    @property
    def vocab_size(self) -> int:
        """Ids the model sees: special tokens counted, scaffolds not."""
        return self.vocabulary.num_model_ids

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 where every id fits, else uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)

    @property
    def vocab(self) -> list[bytes]:
        """The bytes of each id; a special token's are its name, those of an unused id empty."""
        return self.vocabulary.tokens[: self.vocab_size]

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """The two halves of each merged token in order of rank, scaffolds included."""
        tokens = self.vocabulary.tokens
        return [(tokens[left], tokens[right]) for left, right, _ in self.vocabulary.merges.tolist()]

    @property
    def scaffolds(self) -> set[bytes]:
        """Tokens that are only built with; no id of the output stands for one."""
        return set(self.vocabulary.tokens[self.vocab_size :])

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special tokens and their ids."""
        return dict(self.vocabulary.special_tokens)

    @property
    def bos_id(self) -> int | None:
        """Id of the token that begins a text, or None."""
        return None if self.bos is None else self.vocabulary.special_tokens[self.bos]

    @property
    def eos_id(self) -> int | None:
        """Id of the token that ends a text, or None."""
        return None if self.eos is None else self.vocabulary.special_tokens[self.eos]

    @property
    def training(self) -> dict[str, Any]:
        """What training reported: counts, scaffolds, flags set and returned, whether the queue ran dry."""
        return dict(self.vocabulary.training)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex) of everything that decides which ids a document gets: vocabulary, pattern, encoder,
        special tokens, begin and end tokens, and the versions of format and code. Two tokenizers with one fingerprint
        write the same shards (for a pattern that is not built in: with the same version of `regex`)."""
        return self.vocabulary.digest(encoder=self.encoder, bos=self.bos, eos=self.eos)

    # -- encoding

    def encode(self, text: str | bytes, *, allowed_special: Allowed = ()) -> np.ndarray:
        """Ids of one text, uint16 or uint32 (see `dtype`).

        Args:
            text: `str`, or bytes of any kind. A lone surrogate in a `str` counts as its three bytes.
            allowed_special: special tokens to recognise in the text, by name, or "all"; the leftmost, then the longest
                is taken. None by default: user text cannot forge one.
        Raises:
            TokenizerError: `text` is no text, or a name is no special token.
        """
        if not isinstance(text, str | bytes):
            raise TokenizerError(
                f"text is {type(text).__name__}, not str or bytes", hint="for many, use `encode_batch`"
            )
        return self.encode_batch([text], num_threads=1, allowed_special=allowed_special)[0]

    def encode_batch(
        self, texts: Texts, num_threads: int | None = None, *, allowed_special: Allowed = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of many texts, one behind the other, and where each begins.

        Args:
            texts: a list of `str` and `bytes`, or an Arrow array of strings or binaries (read without copying).
            num_threads: threads to use; None for one a core. The result is the same for any number.
            allowed_special: as in `encode`.
        Returns:
            token_ids, uint16 or uint32, and offsets, int64, shape (texts + 1,): text i is
            `token_ids[offsets[i]:offsets[i + 1]]`.
        """
        threads = threads_of(num_threads)
        names = self._allowed(allowed_special)
        if names:
            return self._encode_with_special(texts, threads, names)
        try:
            if native_pattern(self.vocabulary.pattern):
                return self._segmenter.encode(text_batch(texts), threads)
            pieces, counts = presplit(texts, self.vocabulary.pattern)
            token_ids, piece_offsets = self._segmenter.encode(text_batch(pieces), threads)
        except ValueError as problem:
            raise TokenizerError(str(problem), hint="cut the text into documents") from problem
        return token_ids, piece_offsets[np.concatenate([[0], np.cumsum(counts)])]

    def _encode_with_special(self, texts: Texts, threads: int, names: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
        """Each text cut at its special tokens; what lies between is text by itself, as if it were alone."""
        text_batch(texts)  # refuses what is no text
        spelled = {name.encode("utf-8", "surrogatepass"): self.vocabulary.special_tokens[name] for name in names}
        special = re.compile(b"|".join(map(re.escape, sorted(spelled, key=len, reverse=True))))
        between: list[bytes] = []
        found: list[list[int]] = []
        for text in texts:
            data = as_bytes(text if isinstance(text, str | bytes) else text.as_py())
            between += special.split(data)
            found.append([spelled[match] for match in special.findall(data)])
        token_ids, offsets = self.encode_batch(between, threads)
        pieces: list[np.ndarray] = []
        ends = np.zeros(len(found) + 1, dtype=np.int64)
        at = 0
        for i, ids in enumerate(found):
            own = [token_ids[offsets[at] : offsets[at + 1]]]
            for k, special_id in enumerate(ids, at + 1):
                own += [np.array([special_id], dtype=self.dtype), token_ids[offsets[k] : offsets[k + 1]]]
            at += len(ids) + 1
            pieces += own
            ends[i + 1] = ends[i] + sum(map(len, own))
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=self.dtype), ends

    def _allowed(self, allowed_special: Allowed) -> Collection[str]:
        if isinstance(allowed_special, str):
            if allowed_special != "all":
                raise TokenizerError(f"allowed_special is {allowed_special!r}", hint='give "all" or a list of names')
            return self.vocabulary.special_tokens.keys()
        for name in allowed_special:
            if name not in self.vocabulary.special_tokens:
                problem = unknown("special token", str(name), self.vocabulary.special_tokens)
                raise TokenizerError(problem.what, hint=problem.hint)
        return set(allowed_special)

    @cached_property
    def _segmenter(self) -> _native.Encoder:
        pattern = native_pattern(self.vocabulary.pattern) or "whole"
        return native_encoder(self.vocabulary, self.encoder, pattern)

    # -- decoding

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of some ids; bytes that are no UTF-8 become U+FFFD. `decode_bytes` is exact."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes of some ids, special tokens as their names.

        Raises:
            TokenizerError: an id is not in the vocabulary, or not a whole number.
        """
        array = np.asarray(ids)
        if array.size == 0:
            return b""
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise TokenizerError(
                f"ids are {array.dtype}, {array.ndim}-dimensional", hint="give a list of whole numbers"
            )
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self.vocab_size:
            raise TokenizerError(
                f"id {low if low < 0 else high} is not in a vocabulary of {self.vocab_size:,}",
                hint="were these ids made with another tokenizer?",
            )
        joined, offsets, sizes = self._joined
        narrow = np.ascontiguousarray(array, dtype=np.uint32)
        if self._has_unused and not sizes[narrow].all():
            unused = int(narrow[sizes[narrow] == 0][0])
            raise TokenizerError(f"id {unused} is not in use", hint="were these ids made with another tokenizer?")
        return _native.join_tokens(joined, offsets, narrow)

    @cached_property
    def _joined(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sizes = np.array([len(token) for token in self.vocab], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return np.frombuffer(b"".join(self.vocab), dtype=np.uint8), offsets, sizes

    @cached_property
    def _has_unused(self) -> bool:
        return not self._joined[2].all()

    # -- other tokenizers of the same vocabulary, files

    def with_encoder(self, encoder: str) -> Tokenizer:
        """The same vocabulary and ids with the encoder `bpe` or `lbpe`."""
        return Tokenizer(self.vocabulary, encoder=encoder, bos=self.bos, eos=self.eos)

    def to_bytes(self) -> bytes:
        """The content of the tokenizer's file."""
        policy = {"encoder": self.encoder, "bos": self.bos, "eos": self.eos}
        return write_file({"kind": "dataforge-tokenizer", **policy, **self.vocabulary.to_json()})

    def save(self, path: Path | str) -> Path:
        """Write the tokenizer's one file and return where it is.

        Args:
            path: a folder, made if need be, or a file name ending in `.json`.
        """
        file = Path(path)
        if file.suffix != ".json":
            file = file / FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.{os.getpid()}")
        beside.write_bytes(self.to_bytes())
        os.replace(beside, file)
        return file

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """The tokenizer in a file, or in a folder that holds one (a `tokenizers/` artifact).

        Raises:
            TokenizerError: there is none, or the file is damaged, hostile or of another format.
        """
        file = Path(path)
        if file.is_dir():
            file = file / FILE
        try:
            return _from_file(file.read_bytes())
        except OSError as problem:
            raise TokenizerError(
                f"the tokenizer cannot be read: {problem.strerror}", where=str(path), hint=f"give a folder with {FILE}"
            ) from problem
        except TokenizerError as problem:
            raise TokenizerError(problem.what, where=str(file), hint=problem.hint) from problem

    @classmethod
    def from_tiktoken(
        cls,
        ranks: Mapping[bytes, int] | Path | str,
        pattern: str,
        special_tokens: Mapping[str, int] | Sequence[str] = (),
    ) -> Tokenizer:
        """The tokenizer of a tiktoken rank file; ids stay. See `tiktoken_ranks.from_ranks`."""
        from dataforge.tokenizers.tiktoken_ranks import from_ranks

        return from_ranks(ranks, pattern, special_tokens)

    def to_tiktoken(self, path: Path | str) -> Path:
        """Write a tiktoken rank file that gives the same ids. See `tiktoken_ranks.to_ranks`."""
        from dataforge.tokenizers.tiktoken_ranks import write_ranks

        return write_ranks(self, path)

    @classmethod
    def from_huggingface(cls, path: Path | str) -> Tokenizer:
        """The tokenizer of a byte-level BPE `tokenizer.json`; ids stay. See `huggingface_json.from_json`."""
        from dataforge.tokenizers.huggingface_json import read_json

        return read_json(path)

    def to_huggingface(self, path: Path | str) -> Path:
        """Write a `tokenizer.json` that gives the same ids. See `huggingface_json.to_json`."""
        from dataforge.tokenizers.huggingface_json import write_json

        return write_json(self, path)


def native_encoder(vocabulary: Vocabulary, encoder: str, pattern: str) -> _native.Encoder:
    """A native encoder over the vocabulary; `whole` as pattern takes each text for one pre-token."""
    return _native.Encoder(
        vocabulary.tokens,
        vocabulary.in_text,
        np.asarray(vocabulary.byte_ids, dtype=np.uint32),
        np.ascontiguousarray(vocabulary.merges, dtype=np.int32),
        vocabulary.num_model_ids,
        vocabulary.whole_words_first and encoder == "bpe",
        pattern,
        encoder,
    )


def _from_file(text: bytes) -> Tokenizer:
    told = read_file(text)
    if told.get("kind") != "dataforge-tokenizer":
        raise TokenizerError("this is not a tokenizer file", hint="for a tokenizer.json use `from_huggingface`")
    policy = {name: told.get(name) for name in ("bos", "eos")}
    if not all(name is None or isinstance(name, str) for name in policy.values()):
        raise TokenizerError("`bos` and `eos` are not names of special tokens")
    return Tokenizer(Vocabulary.from_json(told), encoder=str(told.get("encoder")), **policy)
