"""Euclidean distances that do not cancel and do not overflow."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

TILE_DIMENSIONS = 1024
"""Dimensions taken at a time: a thousand agents' tile is 8 MB, which stays in the cache while all pairs read it."""


def pairwise_distances(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Euclidean distances between the rows of (k, d): shape (k, k), symmetric, zero on the diagonal.

    Differences are taken directly, in float64. Nearly equal rows keep their full relative precision, which the
    identity |x|² + |y|² − 2xy would lose; and squares of the largest finite float32 numbers are far from overflow.
    The work is spread over torch's threads, by pairs: their number does not change a bit of the result.
    """
    count, size = matrix.shape
    distances = np.zeros((count, count), dtype=np.float64)
    squares = torch.zeros(count * (count - 1) // 2, dtype=torch.float64)
    for start in range(0, size, TILE_DIMENSIONS):
        tile = matrix[:, start : start + TILE_DIMENSIONS].astype(np.float64)
        squares += torch.pdist(torch.from_numpy(tile)).square_()
    distances[np.triu_indices(count, k=1)] = squares.sqrt_().numpy()
    distances += distances.T
    return distances


def distances_to(point: NDArray[np.float64], matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Euclidean distance of each row of (k, d) to a point (d,), shape (k,)."""
    return np.array([np.sqrt(np.square(row - point).sum()) for row in matrix])
