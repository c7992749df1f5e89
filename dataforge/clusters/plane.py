"""A plane through the centroids, so that clusters and some of their documents can be drawn on a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# K clusters  D dimensions


@dataclass(frozen=True)
class Plane:
    """Two orthogonal axes through the middle of the corpus."""

    middle_D: np.ndarray
    axes_D2: np.ndarray

    @classmethod
    def through(cls, centroids_KD: np.ndarray, sizes_K: np.ndarray) -> Plane:
        """The plane on which the centroids, weighted by their sizes, spread most (their first principal components).

        The largest entry of each axis is positive, so that the map does not flip between runs.
        """
        weights_K = sizes_K / max(float(sizes_K.sum()), 1.0)
        middle_D = weights_K @ centroids_KD.astype(np.float64)
        from_middle_KD = centroids_KD - middle_D
        _, axes_DD = np.linalg.eigh((from_middle_KD * weights_K[:, None]).T @ from_middle_KD)
        axes_D2 = axes_DD[:, ::-1][:, :2]
        if axes_D2.shape[1] < 2:
            axes_D2 = np.concatenate([axes_D2, np.zeros_like(axes_D2)], axis=1)
        largest = np.abs(axes_D2).argmax(axis=0)
        signs = np.where(axes_D2[largest, np.arange(2)] < 0, -1.0, 1.0)
        return cls(middle_D, axes_D2 * signs)

    def place(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Where vectors lie on the plane, float32 (N, 2), to five decimals: what a solver's last bits cannot move."""
        return ((vectors_ND - self.middle_D) @ self.axes_D2).round(5).astype(np.float32)
