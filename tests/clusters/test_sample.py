"""The stratified sample: shares, seeds, and who is never in it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dataforge.clusters.sample import systematic_shares

CELLS = st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any)


@given(CELLS, st.data())
def test_every_run_of_cells_has_its_share_rounded_up_or_down(cells: list[int], data: st.DataObject) -> None:
    sizes = np.array(cells, dtype=np.int64)
    total = int(sizes.sum())
    wanted = data.draw(st.integers(0, total))
    offset = data.draw(st.integers(0, total - 1))
    shares = systematic_shares(sizes, wanted, offset)
    assert shares.sum() == wanted
    assert ((shares >= 0) & (shares <= sizes)).all()
    for begin in range(len(sizes)):
        for end in range(begin + 1, len(sizes) + 1):
            exact = wanted * sizes[begin:end].sum() / total
            assert np.floor(exact) <= shares[begin:end].sum() <= np.ceil(exact)


def test_a_cell_below_one_is_taken_as_often_as_its_share_says() -> None:
    sizes = np.array([97, 2, 1], dtype=np.int64)
    shares = np.array([systematic_shares(sizes, 10, offset) for offset in range(100)])
    assert shares.mean(axis=0).tolist() == [9.7, 0.2, 0.1]


def test_sizes_beyond_32_bits_are_shared_exactly() -> None:
    sizes = np.array([3 * 10**9, 10**9], dtype=np.int64)
    assert systematic_shares(sizes, 400_000, 0).tolist() == [300_000, 100_000]
