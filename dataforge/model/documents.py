"""Which document each position of a row belongs to: what attention may look at, and where positions start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataforge.errors import FormatError

# B rows  L positions


@dataclass(frozen=True, slots=True)
class DocumentLayout:
    """Two numbers for every position of a batch of rows.

    A position attends to the earlier positions with its own `context`, and to itself.
    """

    context: Tensor
    """int64 [B, L]: equal within one stretch of one document, different between any two stretches of a row."""
    position: Tensor
    """int64 [B, L]: distance from the start of the stretch."""

    def to(self, device: torch.device | str) -> DocumentLayout:
        return DocumentLayout(self.context.to(device), self.position.to(device))

    def rows(self, start: int, end: int) -> DocumentLayout:
        """The layout of rows [start, end)."""
        return DocumentLayout(self.context[start:end], self.position[start:end])


def layout_of_segments(segments: Any, num_rows: int, length: int) -> DocumentLayout:
    """The layout of a batch's `segments` (int64 [n, 4]: row, document, offset, length) over rows of `length` inputs.

    A row holds `length` + 1 tokens: inputs and, shifted by one, labels. Segments lie in row order and fill each row.

    A position whose label opens another document (it holds a document's last token, the end of text) is a stretch of
    its own: it sees itself alone. So a document's first token is predicted from the end-of-text token and nothing else,
    no later token of it sees that token, and what is said of a document depends neither on its neighbours in the row
    nor on its place in it. Evaluation feeds documents in exactly this form.

    Raises:
        FormatError: the segments do not fill `num_rows` rows of `length` + 1 tokens.
    """
    table = np.asarray(segments, dtype=np.int64).reshape(-1, 4)
    lengths = table[:, 3]
    tokens = num_rows * (length + 1)
    ends = np.cumsum(lengths)
    row_ends = np.arange(1, num_rows + 1) * (length + 1)
    if (lengths < 1).any() or (ends[-1] if len(ends) else 0) != tokens or not np.isin(row_ends, ends).all():
        raise FormatError(
            f"{len(table):,} segments with {lengths.sum():,} tokens do not fill {num_rows:,} rows of {length + 1:,}",
            where="a batch of rows",
            hint="segments must lie in row order, and those of a row must sum to its length",
        )
    segment = np.repeat(np.arange(len(table)), lengths).reshape(num_rows, length + 1)
    start = np.repeat(ends - lengths, lengths).reshape(num_rows, length + 1)
    place = np.arange(tokens).reshape(num_rows, length + 1)
    opens_next = segment[:, 1:] != segment[:, :-1]
    context = 2 * segment[:, :-1] + opens_next
    position = np.where(opens_next, 0, (place - start)[:, :-1])
    return DocumentLayout(torch.from_numpy(context), torch.from_numpy(position))


def one_document(num_rows: int, length: int, device: torch.device | str = "cpu") -> DocumentLayout:
    """The layout of rows that each hold one stretch of one document."""
    position = torch.arange(length, device=device).expand(num_rows, length)
    return DocumentLayout(torch.zeros_like(position), position)
