"""How the plan's draws become rows: arithmetic alone, no file is touched.

`concat` lays the documents of the draws one behind the other and cuts rows of L+1 tokens with stride L: row i is tokens
[iL, iL + L] of that sequence, so its last token, the last label, is the first token of row i+1. Nothing is padded; only
the tail that does not fill a row is dropped, and it is counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PACKINGS = ("concat",)


def num_rows(num_tokens: int, row_length: int) -> int:
    """Rows of L+1 tokens at stride L in a sequence of tokens.

    >>> [num_rows(tokens, 4) for tokens in (0, 1, 4, 5, 8, 9)]
    [0, 0, 0, 1, 1, 2]
    """
    return max(0, (num_tokens - 1) // row_length)


def tokens_in_rows(rows: int, row_length: int) -> int:
    """Tokens of the sequence that lie in a row; neighbours share one.

    >>> tokens_in_rows(2, 4), tokens_in_rows(0, 4)
    (9, 0)
    """
    return rows * row_length + 1 if rows else 0


class Pieces(NamedTuple):
    """Which stretch of which draw makes each piece of some rows, in order. All int64, one entry a piece."""

    row: np.ndarray
    """Index into the rows that were asked for."""
    entry: np.ndarray
    """Index into the table of draws that was given."""
    offset: np.ndarray
    """First token of the piece within its document."""
    length: np.ndarray
    """Tokens, at least 1; they sum to L+1 in every row."""


def cut(begin: np.ndarray, row_tokens: int, starts: np.ndarray, ends: np.ndarray) -> Pieces:
    """Cut rows out of a table of draws.

    Args:
        begin: where each row begins in the sequence, int64.
        row_tokens: tokens of a row, L+1.
        starts, ends: where each draw of the table begins and ends in the sequence, int64, rising; draws without tokens
            are allowed, and so are gaps between draws that no row touches.

    >>> cut(np.array([0, 4]), 5, np.array([0, 3, 3]), np.array([3, 3, 10]))
    Pieces(row=array([0, 0, 1]), entry=array([0, 2, 2]), offset=array([0, 0, 1]), length=array([3, 2, 5]))
    """
    first = np.searchsorted(ends, begin, "right")  # the draw that holds the row's first token
    last = np.searchsorted(ends, begin + (row_tokens - 1), "right")
    counts = last - first + 1
    row = np.repeat(np.arange(begin.size), counts)
    shift = np.cumsum(counts) - counts - first
    entry = np.arange(row.size) - shift[row]
    low = np.maximum(begin[row], starts[entry])
    length = np.minimum(begin[row] + row_tokens, ends[entry]) - low
    offset = low - starts[entry]
    if length.size and int(length.min()) <= 0:
        held = length > 0
        return Pieces(row[held], entry[held], offset[held], length[held])
    return Pieces(row, entry, offset, length)
