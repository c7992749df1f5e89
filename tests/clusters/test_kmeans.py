"""k-means on vectors in memory: unit centroids, the right groups, and refusals with numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.clusters.assign import nearest
from dataforge.clusters.kmeans import distinct_rows, fit_kmeans
from dataforge.errors import ClusteringError


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def groups(seed: int, sizes: list[int], width: int = 12, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Vectors around the axes, and which axis each is near."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.eye(width)[truth] + spread * rng.standard_normal((len(truth), width))
    order = rng.permutation(len(truth))
    return unit(rows)[order].astype(np.float16), truth[order]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 16), st.integers(0, 1000), st.data())
def test_centroids_have_unit_length_for_any_number_of_clusters(
    rows: int, width: int, seed: int, data: st.DataObject
) -> None:
    vectors = unit(np.random.default_rng(seed).standard_normal((rows, width))).astype(np.float16)
    most = len(distinct_rows(vectors)[0])
    fit = fit_kmeans(vectors, data.draw(st.integers(1, most)), seed=seed, iterations=3)
    assert fit.centroids_KD.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(fit.centroids_KD.astype(np.float64), axis=1), 1, atol=1e-6)


def test_planted_groups_are_found_and_the_objective_rises() -> None:
    vectors, truth = groups(0, [400, 30, 200, 10])
    fits = [fit_kmeans(vectors, 4, seed=seed, iterations=20) for seed in range(8)]
    best = max(fits, key=lambda fit: fit.objective[-1])
    labels, _ = nearest(vectors, best.centroids_KD)
    pairs = set(zip(truth.tolist(), labels.tolist()))
    assert len(pairs) == 4, "each group is one cluster"
    for fit in fits:
        assert all(b >= a - 1e-3 for a, b in zip(fit.objective, fit.objective[1:]))
        assert len(fit.objective) == len(fit.splits) == len(fit.imbalance) <= 20


def test_equal_seeds_give_equal_bytes_and_lengths_do_not_matter() -> None:
    vectors, _ = groups(1, [50, 50, 50], spread=0.4)
    first = fit_kmeans(vectors, 5, seed=3)
    assert np.array_equal(first.centroids_KD, fit_kmeans(vectors, 5, seed=3).centroids_KD)
    assert not np.array_equal(first.centroids_KD, fit_kmeans(vectors, 5, seed=4).centroids_KD)
    longer = vectors.astype(np.float32) * np.float32(4.0)
    np.testing.assert_allclose(fit_kmeans(longer, 5, seed=3).centroids_KD, first.centroids_KD, atol=1e-5)


def test_fitting_leaves_the_threads_as_they_were() -> None:
    import faiss

    before = faiss.omp_get_max_threads()
    fit_kmeans(groups(2, [10, 10])[0], 2, seed=0, num_threads=before + 1)
    assert faiss.omp_get_max_threads() == before


def test_copies_count_as_one_vector_with_a_weight() -> None:
    """FAISS alone starts centroids on copies of one point and leaves clusters empty."""
    points = unit(np.random.default_rng(5).standard_normal((5, 8))).astype(np.float16)
    vectors = np.repeat(points, [1000, 1, 1, 1, 1], axis=0)
    fit = fit_kmeans(vectors, 5, seed=0)
    assert fit.distinct == 5
    labels, similarity = nearest(points, fit.centroids_KD)
    assert sorted(labels.tolist()) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(similarity, np.linalg.norm(points.astype(np.float64), axis=1), atol=1e-5)
    assert fit.objective[-1] == pytest.approx(1004, rel=1e-3), "weights count"
    with pytest.raises(ClusteringError) as refused:
        fit_kmeans(vectors, 6, seed=0)
    assert "6 clusters were asked for, but 1,004 vectors hold 5 different ones" in str(refused.value)
    assert refused.value.hint == "set num_clusters to 5 or less"


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_distinct_rows_keep_the_order_of_first_appearance(choice: list[int]) -> None:
    rows = np.arange(10, dtype=np.float16).reshape(5, 2)[choice]
    distinct, weights = distinct_rows(rows)
    assert distinct.tolist() == [list(row) for row in dict.fromkeys(map(tuple, rows.tolist()))]
    assert weights.sum() == len(choice)


@pytest.mark.parametrize(
    ("value", "what"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "all zero")], ids=str
)
def test_vectors_without_a_direction_are_refused_by_number(value: float, what: str) -> None:
    vectors, _ = groups(3, [10, 10])
    vectors[7] = value
    vectors[9] = value
    with pytest.raises(ClusteringError, match=f"2 of 20 vectors are {what}, the first is number 7"):
        fit_kmeans(vectors, 2, seed=0, where="here")
