"""The row index on disk: every row found, every flipped bit found, nothing torn or swapped taken."""

import itertools
import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.errors import CorruptData, FormatError
from dataforge.rows import row_index
from dataforge.rows.packing import cut
from dataforge.rows.row_index import RowIndex, write_ends, write_index
from dataforge.shards.container import SealedFile


@pytest.fixture
def small_pages(monkeypatch):
    """Pages of 512 draws, so that small indexes have many."""
    monkeypatch.setattr(row_index, "PAGE_BYTES", 4096)
    monkeypatch.setattr(row_index, "DRAWS_PER_PAGE", 512)


def _write(folder, lengths, row_length, parts=1, per_part=None):
    folder.mkdir(parents=True, exist_ok=True)
    per_part = per_part or -(-len(lengths) // parts)
    paths = []
    for i, first in enumerate(range(0, len(lengths), per_part)):
        paths.append(folder / f"part-{i:05d}.rows")
        held = np.array(lengths[first : first + per_part], np.int64)
        write_ends(paths[-1], first, np.array_split(held, 3))
    write_index(folder / "index.rows", paths, row_length=row_length, packing="concat")
    return RowIndex(folder)


def _pieces(index, rows):
    pieces, draws = index.pieces(np.array(rows, np.int64))
    columns = (pieces.row, draws.position[pieces.entry], pieces.offset, pieces.length)
    return [column.tolist() for column in columns]


@given(
    seed=st.integers(0, 1000),
    longest=st.sampled_from([1, 2, 30]),
    row_length=st.sampled_from([1, 7, 64, 1000]),
    parts=st.integers(1, 3),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_rows_found_through_pages_are_those_found_in_one_table(
    tmp_path_factory, seed, longest, row_length, parts, data
):
    with pytest.MonkeyPatch.context() as patch:  # small pages, so that small indexes have many
        patch.setattr(row_index, "PAGE_BYTES", 4096)
        patch.setattr(row_index, "DRAWS_PER_PAGE", 512)
        lengths = np.random.default_rng(seed).integers(0, longest + 1, 512 * 2 * parts + seed % 700)
        index = _write(tmp_path_factory.mktemp("rows"), lengths.tolist(), row_length, per_part=1024)
        assert (index.num_draws, index.num_tokens) == (lengths.size, lengths.sum())
        rows = sorted(data.draw(st.lists(st.integers(0, max(0, index.num_rows - 1)), max_size=6)))
        rows = rows if index.num_rows else []
        ends = np.cumsum(lengths)
        plain = cut(np.array(rows, np.int64) * row_length, row_length + 1, ends - lengths, ends)
        assert _pieces(index, rows) == [column.tolist() for column in plain]


def test_a_page_whose_documents_are_all_empty_does_not_hide_a_row(tmp_path, small_pages):
    lengths = [3] * 512 + [0] * 512 * 2 + [3] * 512
    index = _write(tmp_path / "r", lengths, 5)
    ends = np.cumsum(lengths)
    rows = np.arange(index.num_rows)
    plain = cut(rows * 5, 6, ends - lengths, ends)
    assert _pieces(index, rows) == [column.tolist() for column in plain]


def test_every_single_flipped_bit_of_index_and_part_is_found(tmp_path, small_pages):
    """Exhaustive over both files: opened anew for flips in header and trailer, checked in place for the others."""
    folder = tmp_path / "rows" / "t@0123456789ab"
    index = _write(folder, [1, 2, 3] * 30, 10)
    part = index._part(0)
    for path, file in ((folder / "index.rows", index._file), (folder / "part-00000.rows", part)):
        pages = {}
        for section in file.sections.values():
            for at in range(section.offset, section.offset + section.length, 4096):
                pages[at] = section.name
        with open(path, "r+b") as handle, mmap.mmap(handle.fileno(), 0) as held:
            for at, bit in itertools.product(range(len(held)), range(8)):
                name = pages.get(at // 4096 * 4096) if at < len(held) - 64 else None
                held[at] ^= 1 << bit
                try:
                    file._whole.clear()
                    if name is None:
                        SealedFile(path, file.kind)
                    elif name == "ENDS":
                        file.check_page(0)
                    else:
                        file.section(name)
                except CorruptData:
                    pass
                else:
                    pytest.fail(f"bit {bit} of byte {at} of {path.name} was flipped and not found")
                held[at] ^= 1 << bit
    RowIndex(folder).check_all()


def test_torn_swapped_and_missing_files_are_refused(tmp_path, small_pages):
    folder = tmp_path / "rows" / "t@0123456789ab"
    _write(folder, [3] * 2048, 10, per_part=1024)
    rows = np.array([0, 400])
    first, second, index = (folder / name for name in ("part-00000.rows", "part-00001.rows", "index.rows"))
    sound = {path: path.read_bytes() for path in (first, second, index)}

    def refused(match=None):
        with pytest.raises(CorruptData, match=match):
            RowIndex(folder).pieces(rows)
        for path, data in sound.items():
            path.write_bytes(data)

    for path in sound:
        for data in (sound[path][:-1], sound[path] + b"\0", sound[path][: len(sound[path]) // 2], b""):
            path.write_bytes(data)
            refused()
    first.write_bytes(sound[second])
    refused("another part than the index lists")
    first.unlink()
    refused("is missing")
    index.write_bytes(sound[first])
    refused("'rowindex' was expected")
    index.unlink()
    with pytest.raises(FormatError, match=r"no index\.rows"):
        RowIndex(folder)


def test_parts_that_do_not_follow_each_other_are_not_indexed(tmp_path, small_pages):
    write_ends(tmp_path / "a", 0, [np.array([1] * 700)])
    write_ends(tmp_path / "b", 700, [np.array([1] * 700)])
    for order in (["b"], ["a", "a"], ["a", "b"]):  # the last: pages of a part in the middle must be full
        with pytest.raises(FormatError, match="begins with draw"):
            write_index(tmp_path / "index.rows", [tmp_path / name for name in order], row_length=5, packing="concat")


def test_opening_and_reading_do_not_take_longer_for_a_larger_index(tmp_path):
    """Counted, not timed: a row of the largest index touches as many pages as one of the smallest."""
    touched = {}
    for draws in (20_000, 400_000):
        index = _write(tmp_path / str(draws), [5] * draws, 64)
        for row in (0, index.num_rows // 2, index.num_rows - 1):
            index.pieces(np.array([row]))
        touched[draws] = len(index._pages)
    assert touched[400_000] <= touched[20_000] + 3
