"""Ranks share every step's rows: all of them, each once, in order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataforge.errors import ConfigError
from dataforge.streams.ranks import Share


@given(
    world_size=st.integers(1, 70),
    global_batch=st.integers(1, 200),
    cursor=st.integers(0, 300),
    steps=st.integers(0, 8),
    num_rows=st.integers(300, 2000),
)
def test_the_ranks_of_a_step_read_all_its_rows_once(world_size, global_batch, cursor, steps, num_rows):
    one = Share(0, world_size, global_batch)
    steps = min(steps, one.steps_left(cursor, num_rows))
    told = [Share(rank, world_size, global_batch).steps(cursor, steps, num_rows) for rank in range(world_size)]
    for step in range(steps):
        begin = cursor + step * global_batch
        end = min(begin + global_batch, num_rows)
        read = [row for t in told for row in range(int(t.first[step]), int(t.first[step] + t.count[step]))]
        assert read == list(range(begin, end))
        assert {int(t.next_cursor[step]) for t in told} == {end}
        counts = [int(t.count[step]) for t in told]
        assert max(counts) - min(counts) <= 1
    for t in told:
        plain = [row for first, count in zip(t.first, t.count) for row in range(first, first + count)]
        assert t.rows().tolist() == plain
        assert t.num_rows == len(plain)
    if steps == one.steps_left(cursor, num_rows) and steps:
        assert int(told[0].next_cursor[-1]) == num_rows


@pytest.mark.parametrize("given", [(1, 1, 4), (-1, 2, 4), (0, 0, 4), (0, 1, 0), (0, 1 << 17, 4), (0, 1, 1 << 30)])
def test_impossible_shares_are_refused(given):
    with pytest.raises(ConfigError):
        Share(*given)


def test_a_batch_smaller_than_the_world_leaves_some_ranks_nothing():
    counts = [Share(rank, 8, 3).steps(0, 2, 6).count.tolist() for rank in range(8)]
    assert np.sum(counts, axis=0).tolist() == [3, 3]
