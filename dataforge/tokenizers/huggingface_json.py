"""Hugging Face's `tokenizer.json`, as far as byte-level BPE can be read and written exactly.

What a file asks for beyond that (normalizers, dropout, other pre-tokenizers, tokens with side effects) is refused by
name: no file is read as something it is not. Known differences that remain: the `tokenizers` library recognises special
tokens in any text, this one only when asked (`allowed_special`); it runs patterns with Oniguruma, whose Unicode tables
may be older than ours, and which accepts expressions that `regex` reads otherwise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataforge.errors import TokenizerError
from dataforge.tokenizers.pretokenize import PATTERNS, pattern_name
from dataforge.tokenizers.tiktoken_ranks import merges_and_rest, refuse_what_is_no_plain_bpe
from dataforge.tokenizers.tokenizer import Tokenizer
from dataforge.tokenizers.vocabulary import MOST_IDS, Vocabulary


def _byte_letters() -> list[str]:
    """The printable character that stands for each byte (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_LETTERS = _byte_letters()
_BYTES = {letter: byte for byte, letter in enumerate(_LETTERS)}


def read_json(path: Path | str) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, or of a folder that holds one. Ids stay.

    Raises:
        TokenizerError: it cannot be read, or asks for something that is not byte-level BPE; the message names it.
    """
    file = Path(path)
    file = file / "tokenizer.json" if file.is_dir() else file
    try:
        return _from_json(json.loads(file.read_bytes()))
    except OSError as problem:
        raise TokenizerError(f"the file cannot be read: {problem.strerror}", where=str(file)) from problem
    except TokenizerError as problem:
        raise TokenizerError(problem.what, where=str(file), hint=problem.hint) from problem
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        what = f"this is not a tokenizer.json: {type(problem).__name__}: {problem}"
        raise TokenizerError(what, where=str(file)) from problem


def _from_json(told: Mapping[str, Any]) -> Tokenizer:
    model = told["model"]
    _refuse_unless(model.get("type", "BPE") == "BPE", f"a {model.get('type')} model")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        _refuse_unless(not model.get(name), f"`{name}`")
    for name in ("truncation", "padding"):
        _refuse_unless(told.get(name) is None, f"`{name}`")
    normalizer = told.get("normalizer")
    _refuse_unless(not normalizer or normalizer.get("normalizers") == [], f"the normalizer {_type_of(normalizer)}")
    _refuse_unless(
        _type_of(told.get("decoder")) in ("ByteLevel", "none"), f"the decoder {_type_of(told.get('decoder'))}"
    )
    pattern = _pattern_of(told.get("pre_tokenizer"))

    special: dict[str, int] = {}
    for token in told.get("added_tokens") or []:
        name = token["content"]
        _refuse_unless(token.get("special", False), f"the added token {name!r}, which is not special")
        for flag in ("lstrip", "rstrip", "single_word"):
            _refuse_unless(not token.get(flag), f"`{flag}` of the added token {name!r}")
        special[name] = token["id"]
    bos, eos = _begin_and_end(told.get("post_processor"))

    vocab: dict[str, int] = model["vocab"]
    numbers = [*vocab.values(), *special.values()]
    if not all(type(number) is int and 0 <= number < MOST_IDS for number in numbers):
        raise TokenizerError("an id is not a whole number in range")
    if any(vocab.get(name, token) != token for name, token in special.items()):
        raise TokenizerError("a special token has one id in the vocabulary and another among the added tokens")
    tokens = [b""] * (max(numbers, default=0) + 1)
    ids: dict[bytes, int] = {}
    for spelling, token in vocab.items():
        if spelling in special:
            continue
        if tokens[token]:
            raise TokenizerError(f"the id {token} is given twice")
        tokens[token] = _bytes_of(spelling)
        ids[tokens[token]] = token
    missing = [byte for byte in range(256) if bytes([byte]) not in ids]
    if missing:
        raise TokenizerError(f"{len(missing)} of 256 bytes have no token, the first is {missing[0]}")
    pairs = _pairs_of(model["merges"], ids)
    byte_ids = [ids[bytes([byte])] for byte in range(256)]
    merges, spelled, _ = merges_and_rest(tokens, byte_ids, pairs)
    vocabulary = Vocabulary(
        pattern=pattern,
        num_model_ids=len(tokens),
        merges=merges,
        special_tokens=special,
        byte_ids=tuple(byte_ids),
        spelled=spelled,
        whole_words_first=bool(model.get("ignore_merges", False)),
    )
    return Tokenizer(vocabulary, bos=bos, eos=eos)


def _pairs_of(merges: list[Any], ids: Mapping[bytes, int]) -> np.ndarray:
    pairs: dict[tuple[int, int], int] = {}
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        left, right = _bytes_of(left), _bytes_of(right)
        if left not in ids or right not in ids or left + right not in ids:
            raise TokenizerError(f"merge {rank} needs a token that is not in the vocabulary: {left!r} + {right!r}")
        if (ids[left], ids[right]) in pairs:
            raise TokenizerError(f"merge {rank} is listed twice: {left!r} + {right!r}")
        pairs[ids[left], ids[right]] = rank
    return np.array(list(pairs), dtype=np.int32).reshape(-1, 2)


def _pattern_of(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """The pattern of GPT-2's ByteLevel, or of one Split before a ByteLevel without its own."""
    steps = [pre_tokenizer or {}]
    if _type_of(pre_tokenizer) == "Sequence":
        steps = steps[0]["pretokenizers"]
    kinds = [_type_of(step) for step in steps]
    _refuse_unless(kinds in (["ByteLevel"], ["Split", "ByteLevel"]), f"the pre-tokenizer {' + '.join(kinds)}")
    byte_level = steps[-1]
    _refuse_unless(not byte_level.get("add_prefix_space"), "`add_prefix_space`")
    own_regex = byte_level.get("use_regex", True)
    if len(steps) == 1:
        _refuse_unless(own_regex, "ByteLevel without a regular expression, alone")
        return "gpt2"
    _refuse_unless(not own_regex, "two regular expressions in a row")
    split = steps[0]
    _refuse_unless(split.get("behavior") == "Isolated" and not split.get("invert"), "a Split that is not `Isolated`")
    _refuse_unless("Regex" in split["pattern"], "a Split by a plain string")
    return pattern_name(split["pattern"]["Regex"])


def _begin_and_end(processor: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """The tokens that a template puts before and after a text."""
    steps = [processor] if processor else []
    if _type_of(processor) == "Sequence":
        steps = list((processor or {})["processors"])
    begin, end = None, None
    for step in steps:
        kind = _type_of(step)
        _refuse_unless(kind in ("ByteLevel", "TemplateProcessing"), f"the post-processor {kind}")
        if kind == "TemplateProcessing":
            names = [
                piece["SpecialToken"]["id"] if "SpecialToken" in piece else None for piece in (step or {})["single"]
            ]
            text = names.index(None) if None in names else -1
            _refuse_unless(names.count(None) == 1 and text <= 1 and len(names) - text <= 2, "a template of more tokens")
            begin = names[0] if text == 1 else None
            end = names[-1] if len(names) - text == 2 else None
    return begin, end


def _bytes_of(spelling: str) -> bytes:
    try:
        return bytes([_BYTES[letter] for letter in spelling])
    except KeyError as problem:
        raise TokenizerError(
            f"the token {spelling!r} is not spelled in bytes", hint="it may be an added token"
        ) from problem


def _type_of(step: Mapping[str, Any] | None) -> str:
    return str(step.get("type", "none")) if step else "none"


def _refuse_unless(can: bool, feature: str) -> None:
    if not can:
        raise TokenizerError(f"the file asks for {feature}, which is not supported")


def write_json(tokenizer: Tokenizer, path: Path | str) -> Path:
    """Write a `tokenizer.json` that gives the same ids; `bos` and `eos` are not written, as encoding adds neither.

    Args:
        path: a folder, made if need be, or a file name ending in `.json`.
    Raises:
        TokenizerError: no such file can give the same ids: for `lbpe`, for vocabularies with scaffolds, or where a
            special token is spelled like another token.
    """
    refuse_what_is_no_plain_bpe(tokenizer, "tokenizer.json")
    vocabulary = tokenizer.vocabulary
    spellings = ["".join(_LETTERS[byte] for byte in token) for token in vocabulary.tokens]
    vocab = {spellings[i]: i for i in np.flatnonzero(vocabulary.in_text).tolist()}
    for name, token in vocabulary.special_tokens.items():
        if vocab.setdefault(name, token) != token:
            raise TokenizerError(f"the special token {name!r} is spelled like token {vocab[name]}", hint="rename it")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    if vocabulary.pattern == "gpt2":
        pre_tokenizer: dict[str, Any] = byte_level
    else:
        regex = {"Regex": PATTERNS.get(vocabulary.pattern, vocabulary.pattern)}
        split = {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}
    told = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for name, token in sorted(vocabulary.special_tokens.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": vocabulary.whole_words_first,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
            "merges": [[spellings[left], spellings[right]] for left, right, _ in vocabulary.merges.tolist()],
        },
    }  # fmt: skip
    file = Path(path)
    file = file if file.suffix == ".json" else file / "tokenizer.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(beside, file)
    return file
