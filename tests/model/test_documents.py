import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataforge.errors import FormatError
from dataforge.model import layout_of_segments, one_document


@st.composite
def rows_of_segments(draw):
    """Rows of L + 1 tokens cut into segments, with their table."""
    length, num_rows = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    table = []
    for row in range(num_rows):
        cuts = sorted(draw(st.sets(st.integers(1, length), max_size=length)))
        bounds = [0, *cuts, length + 1]
        table += [[100 + row, 7, 0, end - start] for start, end in itertools.pairwise(bounds)]
    return length, num_rows, np.array(table)


@given(rows_of_segments())
def test_a_position_sees_its_own_document_unless_it_opens_the_next(given_rows):
    length, num_rows, table = given_rows
    layout = layout_of_segments(table, num_rows, length)
    for row in range(num_rows):
        segment = np.repeat(np.arange(len(table)), table[:, 3])[row * (length + 1) : (row + 1) * (length + 1)]
        opens = segment[1:] != segment[:-1]
        for p in range(length):
            same = layout.context[row] == layout.context[row, p]
            if opens[p]:
                assert same.sum() == 1
                assert layout.position[row, p] == 0
            else:
                mine = [q for q in range(length) if segment[q] == segment[p] and not opens[q]]
                assert same.nonzero()[:, 0].tolist() == mine
                assert layout.position[row, p] == p - int(np.flatnonzero(segment == segment[p])[0])


@pytest.mark.parametrize(
    "lengths", [[4, 4], [5], [5, 4], [3, 2, 1, 4, 1], [4, 6], [0, 5, 5], [5, 5, 5], []], ids=lambda told: str(told)
)
def test_segments_that_do_not_fill_the_rows_are_refused(lengths):
    table = np.array([[0, 0, 0, n] for n in lengths]).reshape(-1, 4)
    with pytest.raises(
        FormatError, match=f"{len(lengths)} segments with {sum(lengths)} tokens do not fill 2 rows of 5"
    ):
        layout_of_segments(table, 2, 4)


def test_rows_without_segments_are_one_document_each():
    whole = layout_of_segments([[0, 3, 0, 6], [1, 4, 9, 6]], 2, 5)
    plain = one_document(2, 5)
    assert (whole.position == plain.position).all()
    assert all(len(set(row.tolist())) == 1 for row in whole.context)
