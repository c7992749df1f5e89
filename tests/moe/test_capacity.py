import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataforge.moe.capacity import assign_seats, capacity


def seats_by_queue(expert, num_experts, seats):
    """The rule, spelled out: level after level, token after token."""
    used = [0] * num_experts
    seat = [[-1] * len(row) for row in expert]
    for level in range(len(expert[0]) if expert else 0):
        for token, row in enumerate(expert):
            e = row[level]
            if e >= 0:
                if used[e] < seats:
                    seat[token][level] = used[e]
                used[e] += 1
    return seat


@st.composite
def tables(draw):
    num_experts = draw(st.integers(1, 6))
    width = draw(st.integers(1, num_experts))
    lines = st.permutations(range(num_experts)).map(lambda p: list(p[:width]))
    holes = st.lists(st.booleans(), min_size=width, max_size=width)
    rows = draw(st.lists(st.tuples(lines, holes), max_size=20))
    return num_experts, width, [[-1 if hole else e for e, hole in zip(*row)] for row in rows]


@given(tables(), st.integers(0, 8))
def test_seats_are_those_of_the_level_major_queue(table, seats):
    num_experts, width, rows = table
    expert = torch.tensor(rows, dtype=torch.int64).reshape(len(rows), width)
    assert assign_seats(expert, num_experts, seats).tolist() == seats_by_queue(rows, num_experts, seats)


@given(tables(), st.integers(0, 8))
def test_no_expert_is_overfull_and_none_refuses_while_it_has_room(table, seats):
    num_experts, width, rows = table
    expert = torch.tensor(rows, dtype=torch.int64).reshape(len(rows), width)
    seat = assign_seats(expert, num_experts, seats)
    for e in range(num_experts):
        mine = seat[expert == e]
        assert sorted(mine[mine >= 0].tolist()) == list(range(min(seats, mine.numel())))


@pytest.mark.parametrize(
    ("tokens", "experts", "k", "factor", "expected"),
    [(8, 4, 1, 1.0, 2), (8, 4, 2, 1.25, 5), (10, 1, 1, 1.1, 11), (1, 64, 1, 1.0, 1), (0, 4, 1, 2.0, 1)],
)
def test_capacity_is_the_even_share_times_the_factor_rounded_up(tokens, experts, k, factor, expected):
    assert capacity(tokens, experts, k, factor) == expected
