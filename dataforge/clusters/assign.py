"""The nearest centroid of every vector: a blocked product, then an exact look at what is too close to call.

A single-precision product can be off by D·2⁻²⁴ times the lengths. Rows whose best centroids lie within that are settled
in double precision, and the similarity of the chosen one is summed in double precision: labels and similarities depend
neither on the block size nor on how many threads the product ran on.
"""

from __future__ import annotations

import numpy as np

from dataforge.errors import ClusteringError

# N vectors  D dimensions  K clusters

_BLOCK_SCORES = 1 << 21
_BLOCK_PAIRS = 1 << 15


def nearest(
    vectors_ND: np.ndarray, centroids_KD: np.ndarray, *, block_rows: int | None = None, where: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each vector and the product with it.

    Args:
        vectors_ND: float16 or float32, also mapped from disk.
        centroids_KD: float32, of unit length.
        block_rows: vectors looked at in one product; it changes time and memory, nothing else.
        where: for errors.
    Returns:
        Labels, int32 (N,), ties to the lowest; similarities x·c, float32 (N,).
    Raises:
        ClusteringError: a vector is not finite.

    >>> nearest(np.array([[1, 0], [0.6, 0.8]], np.float16), np.eye(2, dtype=np.float32))
    (array([0, 1], dtype=int32), array([1.       , 0.7998047], dtype=float32))
    """
    num_clusters = len(centroids_KD)
    block_rows = block_rows or min(max(_BLOCK_SCORES // num_clusters, 1024), 16384)
    labels_N = np.empty(len(vectors_ND), dtype=np.int32)
    similarity_N = np.empty(len(vectors_ND), dtype=np.float32)
    exact_KD = centroids_KD.astype(np.float64)
    for begin in range(0, len(vectors_ND), block_rows):
        block_BD = vectors_ND[begin : begin + block_rows].astype(np.float32)
        here = slice(begin, begin + len(block_BD))
        labels_N[here] = _nearest_of_block(block_BD, centroids_KD, exact_KD, begin, where)
        similarity_N[here] = _products(block_BD, exact_KD, np.arange(len(block_BD)), labels_N[here])
    return labels_N, similarity_N


def _nearest_of_block(
    block_BD: np.ndarray, centroids_KD: np.ndarray, exact_KD: np.ndarray, begin: int, where: str | None
) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # said below, with the row's number
        scores_BK = block_BD @ centroids_KD.T
    labels_B = scores_BK.argmax(axis=1)
    best_B = scores_BK[np.arange(len(block_BD)), labels_B]
    if not np.isfinite(best_B).all():
        row = begin + int((~np.isfinite(best_B)).argmax())
        raise ClusteringError(
            f"vector {row:,} is not finite",
            where=where,
            hint="embed the documents again; `dataforge verify` says whether the vectors were damaged",
        )
    # Twice the error bound of a product, for the two that are compared; lengths are 1 but for float16's rounding.
    longest = np.sqrt(np.einsum("bd,bd->b", block_BD, block_BD).max(initial=0.0))
    margin = np.float32(2.2 * block_BD.shape[1] * 2.0**-24 * max(longest, 1.0))
    close_BK = scores_BK >= (best_B - margin)[:, None]
    unsettled = np.flatnonzero(close_BK.sum(axis=1) > 1)
    for at in range(0, len(unsettled), max(1, _BLOCK_PAIRS // len(centroids_KD))):
        rows = unsettled[at : at + max(1, _BLOCK_PAIRS // len(centroids_KD))]
        which, labels = np.nonzero(close_BK[rows])
        products = _products(block_BD, exact_KD, rows[which], labels)
        best_first = np.lexsort((labels, -products, which))
        labels_B[rows] = labels[best_first[np.searchsorted(which, np.arange(len(rows)))]]
    return labels_B


def _products(block_BD: np.ndarray, exact_KD: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """x·c for pairs of row and label, summed in double precision."""
    return np.einsum("pd,pd->p", block_BD[rows].astype(np.float64), exact_KD[labels])
