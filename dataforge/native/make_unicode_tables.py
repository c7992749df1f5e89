"""Writes unicode_tables.inc: the class of every code point, as the `regex` package sees it.

    python dataforge/native/make_unicode_tables.py

The named patterns ask of a character only whether it is a letter (and of which case), a mark, a number, white space or
a line break. Those classes are asked of `regex` itself, so that the table, the patterns' plain twin and the version in
the table's head agree by construction; a test compares every code point again. A newer `regex` that knows newer
characters splits text with those characters otherwise: raise SPLITTER_VERSION in tokenizers/vocabulary.py with it.
"""

from __future__ import annotations

from email.message import Message
from importlib.metadata import metadata
from pathlib import Path
from typing import cast

import regex

NUM_CODE_POINTS = 0x110000
BLOCK = 128

# The class numbers of unicode.hpp; 0 ("other") is what is left. A later line overrides an earlier one.
CLASSES = {
    1: r"\p{M}",
    2: r"[\p{Lu}\p{Lt}]",
    3: r"\p{Ll}",
    4: r"[\p{Lm}\p{Lo}]",
    5: r"\p{N}",
    6: r"\s",
    7: r"[\r\n]",
}


def class_of_each_code_point() -> bytes:
    """One byte a code point: its class number."""
    found = bytearray(NUM_CODE_POINTS)
    everything = "".join(map(chr, range(NUM_CODE_POINTS)))
    for number, characters in CLASSES.items():
        for match in regex.finditer(characters + "+", everything):
            found[match.start() : match.end()] = bytes([number]) * (match.end() - match.start())
    return bytes(found)


def main() -> None:
    """Write the table beside this file."""
    classes = class_of_each_code_point()
    blocks: dict[bytes, int] = {}
    index = [blocks.setdefault(classes[i : i + BLOCK], len(blocks)) for i in range(0, NUM_CODE_POINTS, BLOCK)]
    described = regex.search(r"Unicode (\d+\.\d+\.\d+)", str(cast(Message, metadata("regex")).get_payload()))
    unicode_version = described[1] if described else "of an unstated version"

    def rows(values: bytes | list[int]) -> str:
        return "\n".join("    " + ",".join(map(str, values[i : i + 56])) + "," for i in range(0, len(values), 56))

    text = f"""\
// Written by make_unicode_tables.py from regex {regex.__version__} (Unicode {unicode_version}). Do not edit.
// Two stages: block of code point >> 7, then class of code point & 127 in that block.
inline constexpr uint16_t kUnicodeBlock[{len(index)}] = {{
{rows(index)}
}};
inline constexpr uint8_t kUnicodeClass[{len(blocks)} * {BLOCK}] = {{
{rows(b"".join(blocks))}
}};
"""
    Path(__file__).with_name("unicode_tables.inc").write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
