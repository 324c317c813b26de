"""Euclidean distances that neither cancel nor overflow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

TILE_DIMENSIONS = 1024
"""Dimensions taken at a time: a thousand agents' tile is 8 MB, which stays in the cache while all pairs read it."""
CANCELLATION = 1e-6
"""Where |x − y|² is a smaller part of |x|² + |y|², their difference loses more than six of its sixteen digits."""
ORIGINS = 2
"""From how many origins distances are tried before rows are subtracted pair by pair."""


def pairwise_distances(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Euclidean distances between the rows of (k, d): shape (k, k), symmetric, zero on the diagonal.

    |x − y|² = |x|² + |y|² − 2xy, in float64, where the squares of the largest float32 numbers are far from overflow.
    Rows so close to each other that this would cancel are first moved to an origin among them; those that are close
    even then are subtracted from each other, which takes five times as long. At least nine digits are right.
    """
    squares, is_cancelled = _squares_from(np.zeros(matrix.shape[1], dtype=np.float64), matrix)
    close = np.flatnonzero(is_cancelled.any(axis=1))
    for _ in range(ORIGINS - 1):
        if len(close):
            origin = matrix[close[0]].astype(np.float64)
            squares[np.ix_(close, close)], is_cancelled = _squares_from(origin, matrix[close])
            close = close[is_cancelled.any(axis=1)]
    if len(close):
        squares[np.ix_(close, close)] = _squared_differences(matrix[close])
    return np.sqrt(squares)


def _squares_from(
    origin: NDArray[np.float64], matrix: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Squared distances between the rows of (k, d), seen from an origin (d,), and where they cancel: both (k, k)."""
    products = np.zeros((len(matrix), len(matrix)), dtype=np.float64)
    for columns in _tiles(matrix):
        tile = matrix[:, columns] - origin[columns]
        products += tile @ tile.T
    lengths = np.diag(products)
    sums = lengths[:, None] + lengths
    squares = sums - 2.0 * products
    is_cancelled = squares < CANCELLATION * sums
    np.fill_diagonal(is_cancelled, val=False)
    return squares, is_cancelled


def _squared_differences(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared distances between the rows of (k, d), pair by pair: shape (k, k)."""
    import torch  # takes a second, and most federations never have vectors so close to each other

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # see `use_one_thread`, which does not know of what is imported later
    try:
        pairs = torch.zeros(len(matrix) * (len(matrix) - 1) // 2, dtype=torch.float64)
        for columns in _tiles(matrix):
            pairs += torch.pdist(torch.from_numpy(matrix[:, columns].astype(np.float64))).square_()
    finally:
        torch.set_num_threads(threads)
    squares = np.zeros((len(matrix), len(matrix)), dtype=np.float64)
    squares[np.triu_indices(len(matrix), k=1)] = pairs.numpy()
    return squares + squares.T


def _tiles(matrix: NDArray[np.float32]) -> Iterator[slice]:
    """The columns of (k, d), some at a time."""
    for start in range(0, matrix.shape[1], TILE_DIMENSIONS):
        yield slice(start, start + TILE_DIMENSIONS)


def distances_to(point: NDArray[np.float64], matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Euclidean distance of each row of (k, d) to a point (d,), shape (k,)."""
    return np.array([np.sqrt(np.square(row - point).sum()) for row in matrix])
