"""Where pre-tokens end: the patterns by name, and splitting with the `regex` package, the truth for native code.

Text is bytes here. A byte that is no part of well-formed UTF-8 counts as one character that is neither letter, number
nor white space (Python's "surrogateescape" view), so every byte string can be split and nothing is lost. A string is
taken as its UTF-8 bytes; a lone surrogate in it becomes the three bytes that "surrogatepass" gives it.
"""

from __future__ import annotations

from functools import lru_cache

import regex

from dataforge.errors import TokenizerError

_WHITE_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"

# Each as its owner runs it, written so that the `regex` package, tiktoken's engine and Oniguruma read it alike.
PATTERNS: dict[str, str] = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # tiktoken's present one: white space that ends the text stays whole, line breaks included. Older copies lack that
    # alternative; they are the same as "llama3".
    "cl100k": _CONTRACTION
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?![\s\S])|"
    + _WHITE_SPACE,
    "llama3": _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _WHITE_SPACE,
    "qwen2": _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _WHITE_SPACE,
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    + _CONTRACTION
    + r"?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    + _CONTRACTION
    + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
    + _WHITE_SPACE,
}

# Other spellings of the same patterns, as tiktoken and tokenizer.json files carry them.
_SPELLINGS: dict[str, str] = {
    **{pattern: name for name, pattern in PATTERNS.items()},
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s": "gpt2",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
    r"\s+(?!\S)|\s": "cl100k",
}


def pattern_name(pattern: str) -> str:
    """The name of a known pattern, given by name or by any of its spellings; else the expression itself, checked.

    >>> pattern_name("gpt2"), pattern_name(PATTERNS["qwen2"]), pattern_name(r"\\S+|\\s+")
    ('gpt2', 'qwen2', '\\\\S+|\\\\s+')

    Raises:
        TokenizerError: the expression does not compile.
    """
    if pattern in PATTERNS:
        return pattern
    if pattern not in _SPELLINGS:
        _compiled(pattern)
    return _SPELLINGS.get(pattern, pattern)


def native_pattern(pattern: str) -> str | None:
    """The name native code knows the pattern by, or None when it must be run by the `regex` package."""
    return pattern if pattern in PATTERNS else None


def as_bytes(text: str | bytes) -> bytes:
    """The bytes that are tokenized: those of UTF-8, a lone surrogate as its three bytes."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def pretokens(text: str | bytes, pattern: str) -> list[bytes]:
    """The text's pre-tokens by the `regex` package; joined they are the text.

    What the expression does not match becomes a pre-token of its own (tiktoken would drop it), and empty matches
    are passed over: nothing of the text is lost whatever the expression.

    >>> pretokens("Don't panic  now", "gpt2")
    [b'Don', b"'t", b' panic', b' ', b' now']
    """
    characters = as_bytes(text).decode("utf-8", "surrogateescape")
    pieces: list[str] = []
    reached = 0
    for match in _compiled(PATTERNS.get(pattern, pattern)).finditer(characters):
        if match.start() == match.end():
            continue
        if match.start() > reached:
            pieces.append(characters[reached : match.start()])
        pieces.append(match[0])
        reached = match.end()
    if reached < len(characters):
        pieces.append(characters[reached:])
    return [piece.encode("utf-8", "surrogateescape") for piece in pieces]


@lru_cache(maxsize=32)
def _compiled(pattern: str) -> regex.Pattern[str]:
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError) as problem:
        raise TokenizerError(
            f"the pattern does not compile: {problem}",
            where=pattern[:200],
            hint=f"give a regular expression of the `regex` package, or one of {', '.join(PATTERNS)}",
        ) from problem
