"""The arithmetic of concatenated rows, against the plain way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataforge.rows.packing import cut, num_rows, tokens_in_rows


@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=30), row_length=st.integers(1, 15), data=st.data())
def test_pieces_are_the_stretches_that_a_plain_loop_finds(lengths, row_length, data):
    ends = np.cumsum(lengths)
    starts = ends - lengths
    rows = num_rows(int(ends[-1]), row_length)
    wanted = sorted(data.draw(st.sets(st.integers(0, rows - 1)))) if rows else []
    origin = [(draw, offset) for draw, length in enumerate(lengths) for offset in range(length)]
    pieces = cut(np.array(wanted, np.int64) * row_length, row_length + 1, starts, ends)
    found = list(zip(*(column.tolist() for column in pieces)))
    assert all(length > 0 for *_, length in found)
    for index, row in enumerate(wanted):
        spelled = [(entry, offset + k) for i, entry, offset, length in found if i == index for k in range(length)]
        assert spelled == origin[row * row_length : row * row_length + row_length + 1]
    assert [i for i, *_ in found] == sorted(i for i, *_ in found)


@given(tokens=st.integers(0, 10_000), row_length=st.integers(1, 500))
def test_tokens_in_are_tokens_in_rows_and_a_tail_shorter_than_a_row(tokens, row_length):
    rows = num_rows(tokens, row_length)
    tail = tokens - tokens_in_rows(rows, row_length)
    assert 0 <= tail <= row_length
    if rows:
        assert tail < row_length
        assert (rows - 1) * row_length + row_length + 1 <= tokens


@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_too_few_tokens_make_no_row(tokens):
    assert num_rows(tokens, 7) == 0
    assert tokens_in_rows(0, 7) == 0
