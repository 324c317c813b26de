"""The geometric median by Weiszfeld's algorithm (Weiszfeld 1937)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEPS = 24
"""From the mean of points of which four in ten lie twenty spreads away, this is within 1e-3 of a spread."""
FLOOR = 1e-12
"""Squared distances count as at least this part of the largest: a point that the median falls on has a finite pull."""


def geometric_median(rows: NDArray[np.float64], steps: int = STEPS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The point of least summed distance to the rows of (k, n), which should have their bulk near zero.

    Returned as each row's share in it (k,), which sum to 1 (the point is `shares @ rows`), and the rows' distances to
    it (k,). Nothing overflows for rows of up to about 1e150.
    """
    squares = np.einsum("ij,ij->i", rows, rows)
    shares = np.full(len(rows), 1.0 / len(rows))
    for _ in range(steps):
        distances = _squared_distances(rows, squares, shares)
        pull = 1.0 / np.sqrt(np.maximum(distances, FLOOR * distances.max() + 1e-300))
        shares = pull / pull.sum()
    return shares, np.sqrt(_squared_distances(rows, squares, shares))


def _squared_distances(
    rows: NDArray[np.float64], squares: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    point = shares @ rows
    result: NDArray[np.float64] = np.maximum(squares - 2.0 * (rows @ point) + point @ point, 0.0)
    return result
