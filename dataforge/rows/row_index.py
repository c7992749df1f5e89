"""The row index on disk: for every draw of a plan, where its tokens end in the sequence that rows are cut from.

One part (`part-00000.rows`) holds the ends of 2^20 draws, counted from the part's own first token, in pages of 8,192
draws that are checked at their first touch; so parts can be made apart, in any order. `index.rows` holds where every
page begins in the whole sequence, the totals and the row length. Finding row i is a search among the page positions and
a search in one page, whatever the number of rows. Both are sealed files; docs/formats.md has the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataforge.errors import ChecksumMismatch, FormatError
from dataforge.rows.packing import Pieces, cut, num_rows
from dataforge.shards.container import Kind, SealedFile, SealedWriter, place_of

PAGE_BYTES = 1 << 16
DRAWS_PER_PAGE = PAGE_BYTES // 8
DRAWS_PER_PART = 1 << 20
_PAGES_KEPT = 64

ENDS = Kind("rowends", struct.Struct("<qQQ"), "pack", paged="ENDS")
INDEX = Kind("rowindex", struct.Struct("<QQQQQI16s"), "pack")
INDEX_NAME = "index.rows"


@dataclass(frozen=True)
class EndsFields:
    """What the header of a part says, in the order of its bytes."""

    first_draw: int
    num_draws: int
    num_tokens: int


@dataclass(frozen=True)
class IndexFields:
    """What the header of `index.rows` says, in the order of its bytes."""

    row_length: int
    """L: a row holds L+1 tokens."""
    num_rows: int
    num_draws: int
    num_tokens: int
    num_parts: int
    draws_per_page: int
    packing: bytes


class Draws(NamedTuple):
    """A stretch of the plan's draws in the sequence. All int64."""

    position: np.ndarray
    """Plan position of each draw."""
    starts: np.ndarray
    ends: np.ndarray


def write_ends(path: Path, first_draw: int, lengths: Iterable[np.ndarray]) -> EndsFields:
    """Write one part: the running sum of token counts per draw. Memory is one page and one piece of `lengths`."""
    writer = SealedWriter(path, ENDS, page_bytes=PAGE_BYTES, item="<i8")
    draws = tokens = 0
    try:
        for piece in lengths:
            ends = tokens + np.cumsum(piece, dtype=np.int64)
            if piece.size:
                draws, tokens = draws + piece.size, int(ends[-1])
                writer.append(ends)
        fields = EndsFields(first_draw, draws, tokens)
        writer.finish(ENDS.fields.pack(*astuple(fields)), [])
    finally:
        writer.close()
    return fields


def write_index(path: Path, parts: list[Path], *, row_length: int, packing: str) -> IndexFields:
    """Write the index over a rows artifact's parts, reading the last end of every page of every part."""
    fences: list[np.ndarray] = []
    table, names = [], []
    draws = tokens = 0
    for part in parts:
        file = SealedFile(part, ENDS)
        told = EndsFields(*ENDS.fields.unpack(file.fields))
        if told.first_draw != draws or (part is not parts[-1] and told.num_draws % DRAWS_PER_PAGE):
            raise file.fail(f"begins with draw {told.first_draw:,}, draw {draws:,} comes next")
        file.check_all_pages()
        last_of_page = file.paged()[DRAWS_PER_PAGE - 1 :: DRAWS_PER_PAGE]
        begins = np.concatenate([[0], last_of_page])[: file.num_pages]
        fences.append(tokens + begins.astype(np.int64))
        table.append((told.first_draw, told.num_draws, tokens, file.header_sum))
        names.append(part.name)
        draws, tokens = draws + told.num_draws, tokens + told.num_tokens
    fields = IndexFields(
        row_length, num_rows(tokens, row_length), draws, tokens, len(parts), DRAWS_PER_PAGE, packing.encode()
    )
    fence = np.concatenate([*fences, [tokens]]).astype(np.int64)
    listed = "".join(f"{name}\n" for name in names).encode("ascii")
    writer = SealedWriter(path, INDEX, page_bytes=PAGE_BYTES)
    sections = [("FENCE", "<i8", fence), ("PARTS", "<i8", np.array(table, np.int64))]
    writer.finish(INDEX.fields.pack(*astuple(fields)), [*sections, ("NAMES", "u1", np.frombuffer(listed, np.uint8))])
    return fields


class RowIndex:
    """The row index of a rows artifact's folder, mapped part by part.

    Raises:
        FormatError, ChecksumMismatch: something is not what was written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / INDEX_NAME
        if not path.is_file():
            raise FormatError(
                f"there is no {INDEX_NAME}",
                where=str(folder),
                hint="give the folder of a whole rows artifact (it has a manifest.json)",
            )
        self.folder = folder
        self._file = SealedFile(path, INDEX)
        self._fields = IndexFields(*INDEX.fields.unpack(self._file.fields))
        self._table = self._file.section("PARTS").reshape(-1, 4)
        self._names = bytes(self._file.section("NAMES")).decode("ascii").split("\n")[:-1]
        self._fence = self._file.section("FENCE")
        self._check_index()
        self._parts: list[SealedFile | None] = [None] * len(self._names)
        self._pages: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def _check_index(self) -> None:
        told = self._fields
        fits = told.row_length > 0 and told.draws_per_page > 0 and len(self._names) == told.num_parts
        fits = fits and self._table.shape[0] == told.num_parts and self._fence.size == self.num_pages + 1
        fits = fits and num_rows(told.num_tokens, told.row_length) == told.num_rows
        fits = fits and bool((self._fence[1:] >= self._fence[:-1]).all()) and int(self._fence[0]) == 0
        if not fits or int(self._fence[-1]) != told.num_tokens or int(self._table[:, 1].sum()) != told.num_draws:
            raise self._file.fail("has totals that its tables do not add up to")
        if any(name != Path(name).name or name in ("", ".", "..") or "\\" in name for name in self._names):
            raise self._file.fail("names a part that is not a plain file name")

    @property
    def row_length(self) -> int:
        """L: a row holds L+1 tokens."""
        return self._fields.row_length

    @property
    def num_rows(self) -> int:
        return self._fields.num_rows

    @property
    def num_draws(self) -> int:
        return self._fields.num_draws

    @property
    def num_tokens(self) -> int:
        """Tokens of all draws, the tail that fills no row included."""
        return self._fields.num_tokens

    @property
    def packing(self) -> str:
        return self._fields.packing.rstrip(b"\0").decode("ascii", "replace")

    @property
    def num_pages(self) -> int:
        return -(-self._fields.num_draws // self._fields.draws_per_page)

    def pieces(self, rows: np.ndarray) -> tuple[Pieces, Draws]:
        """The pieces of some rows, and the draws that they are cut from.

        Args:
            rows: int64 row numbers below `num_rows`, rising.
        """
        begin = rows * self.row_length
        draws = self._draws(begin, begin + self.row_length)
        return cut(begin, self.row_length + 1, draws.starts, draws.ends), draws

    def _draws(self, first_token: np.ndarray, last_token: np.ndarray) -> Draws:
        """The draws of every page that holds a token of one of the stretches."""
        low = np.searchsorted(self._fence, first_token, "right") - 1
        high = np.searchsorted(self._fence, last_token, "right") - 1
        if low.size == 0:
            empty = np.zeros(0, np.int64)
            return Draws(empty, empty, empty)
        marks = np.zeros(int(high[-1]) - int(low[0]) + 2, np.int64)  # +1 where a stretch of pages begins, -1 behind it
        np.add.at(marks, low - low[0], 1)
        np.add.at(marks, high - low[0] + 1, -1)
        pages = (np.flatnonzero(np.cumsum(marks)[:-1]) + int(low[0])).tolist()
        held = [self._page(page) for page in pages]
        per_page = self._fields.draws_per_page
        if len(held) == 1:
            starts, ends = held[0]
            return Draws(pages[0] * per_page + np.arange(ends.size), starts, ends)
        position = [page * per_page + np.arange(ends.size) for page, (_, ends) in zip(pages, held, strict=True)]
        starts, ends = (np.concatenate(told) for told in zip(*held, strict=True))
        return Draws(np.concatenate(position), starts, ends)

    def _page(self, page: int) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends of a page's draws in the whole sequence, checked."""
        known = self._pages.get(page)
        if known is not None:
            return known
        per_page = self._fields.draws_per_page
        draw = page * per_page
        index = int(np.searchsorted(self._table[:, 0], draw, "right")) - 1
        part = self._part(index)
        local = (draw - int(self._table[index, 0])) // per_page
        part.check_page(local)
        ends = part.paged()[local * per_page : (local + 1) * per_page] + self._table[index, 2]
        begin = self._fence[page]
        starts = np.concatenate([[begin], ends[:-1]])
        if int(ends[-1]) != int(self._fence[page + 1]) or (ends < starts).any():
            raise part.fail(f"ends page {local} at token {int(ends[-1]):,}, the index says {self._fence[page + 1]:,}")
        for old in list(self._pages)[: max(0, len(self._pages) - _PAGES_KEPT + 1)]:
            self._pages.pop(old, None)  # oldest first; another thread may have been quicker
        self._pages[page] = starts, ends
        return starts, ends

    def _part(self, index: int) -> SealedFile:
        part = self._parts[index]
        if part is None:
            path = self.folder / self._names[index]
            if not path.is_file():
                raise FormatError(f"{path.name} is missing", where=place_of(path), hint="`dataforge verify` says more")
            part = SealedFile(path, ENDS)
            if part.header_sum != int(self._table[index, 3]) or part.page_bytes != 8 * self._fields.draws_per_page:
                raise ChecksumMismatch(
                    f"{path.name} is another part than the index lists (header {part.header_sum:08x})",
                    where=place_of(path),
                    hint="the file was swapped; `dataforge pack --remake` writes it again",
                )
            self._parts[index] = part
        return part

    def check_all(self) -> None:
        """Compare every byte with its checksum."""
        for index in range(len(self._names)):
            self._part(index).check_all_pages()
        for page in range(self.num_pages):
            self._page(page)

    def close(self) -> None:
        """Let go of the maps."""
        self._parts = [None] * len(self._names)
        self._pages = {}
