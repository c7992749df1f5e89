"""Exact labels: what brute force in double precision says, whatever the block size and the number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.clusters.assign import nearest
from dataforge.errors import ClusteringError


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """All products in extended precision."""
    return vectors.astype(np.longdouble) @ centroids.astype(np.longdouble).T


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 24), st.integers(1, 20), st.integers(0, 2**32 - 1), st.integers(1, 70))
def test_no_other_centroid_is_closer_and_the_similarity_is_that_of_the_label(
    rows: int, width: int, clusters: int, seed: int, block: int
) -> None:
    """papers/sampling.md, invariant I9."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((rows, width))).astype(np.float16)
    centroids = unit(rng.standard_normal((clusters, width))).astype(np.float32)
    labels, similarity = nearest(vectors, centroids, block_rows=block)
    assert (labels.dtype, similarity.dtype) == (np.int32, np.float32)
    products = brute_force(vectors, centroids)
    assert np.array_equal(labels, products.argmax(axis=1))
    np.testing.assert_allclose(similarity, products[np.arange(rows), labels].astype(np.float64), rtol=1e-7, atol=1e-12)


def test_near_ties_are_settled_as_in_double_precision() -> None:
    """Centroids that differ by less than single precision can tell of their products."""
    rng = np.random.default_rng(0)
    centre = unit(rng.standard_normal((1, 256)))
    centroids = unit(centre + 1e-7 * rng.standard_normal((64, 256))).astype(np.float32)
    vectors = unit(centre + 0.1 * rng.standard_normal((500, 256))).astype(np.float16)
    labels, _ = nearest(vectors, centroids)
    products = brute_force(vectors, centroids)
    assert np.array_equal(labels, products.argmax(axis=1))
    single = (vectors.astype(np.float32) @ centroids.T).argmax(axis=1)
    assert (single != labels).any(), "single precision alone gets some of these wrong"


def test_equal_centroids_give_the_lowest_label() -> None:
    centroids = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    labels, _ = nearest(np.eye(4, dtype=np.float16), centroids)
    assert labels.tolist() == [0, 3, 6, 9]
    same = np.repeat(np.ones((1, 4), np.float32) / 2, 100, axis=0)
    assert not nearest(np.eye(4, dtype=np.float16), same)[0].any()


@pytest.mark.parametrize("block_rows", [1, 7, 64, 1000, 5000])
def test_labels_and_similarities_have_the_same_bits_for_every_block_size(block_rows: int) -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng.standard_normal((3000, 48))).astype(np.float16)
    centroids = unit(rng.standard_normal((150, 48))).astype(np.float32)
    expected = nearest(vectors, centroids)
    found = nearest(vectors, centroids, block_rows=block_rows)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


def test_the_number_of_threads_of_the_product_changes_no_bit() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    rng = np.random.default_rng(2)
    vectors = unit(rng.standard_normal((4000, 256))).astype(np.float16)
    centroids = unit(rng.standard_normal((300, 256))).astype(np.float32)
    told = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads, user_api="blas"):
            told.append(nearest(vectors, centroids))
    assert np.array_equal(told[0][0], told[1][0])
    assert np.array_equal(told[0][1], told[1][1])


def test_no_vectors_give_no_labels_and_bad_ones_are_refused() -> None:
    centroids = np.eye(3, dtype=np.float32)
    labels, similarity = nearest(np.zeros((0, 3), np.float16), centroids)
    assert labels.shape == similarity.shape == (0,)
    vectors = np.ones((10, 3), np.float16)
    for value in (np.nan, np.inf):
        vectors[6, 1] = value
        with pytest.raises(ClusteringError, match="vector 6 is not finite"):
            nearest(vectors, centroids, block_rows=4, where="here")
