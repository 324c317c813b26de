"""The top eigenvalue of a Gram matrix: exact, without a random start, and in time for a thousand votes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMALL = 200
"""Up to this size LAPACK finds all eigenvalues sooner."""
STEPS_MAX = 300
LOOK_EVERY = 15
"""Steps after which is seen whether the eigenvector is found."""
RESIDUAL = 1e-10
"""How far, as a part of the eigenvalue, the matrix may move the eigenvector off its line."""


def top_eigenpair(matrix: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The largest eigenvalue of a symmetric positive matrix (k, k), and its eigenvector (k,) of length 1.

    A large matrix is given to Lanczos' algorithm, which starts at its longest column. That it has found the largest
    eigenvalue, and not the second, is proved by a Cholesky decomposition; where it has not, LAPACK finds all.
    """
    found = _lanczos(matrix) if len(matrix) > SMALL else None
    if found is not None and _bounds(found[0] * (1 + 1e-8), matrix):
        return found
    values, vectors = np.linalg.eigh(matrix)
    return float(values[-1]), vectors[:, -1]


def _bounds(bound: float, matrix: NDArray[np.float64]) -> bool:
    """Whether no eigenvalue is larger than this."""
    try:
        np.linalg.cholesky(bound * np.eye(len(matrix)) - matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def _lanczos(matrix: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]] | None:
    start = matrix[:, int(np.argmax(np.diag(matrix)))]
    length = np.sqrt(np.square(start).sum())
    if not length > 0:
        return None
    basis = np.zeros((STEPS_MAX + 1, len(matrix)))
    basis[0] = start / length
    small = np.zeros((STEPS_MAX + 1, STEPS_MAX + 1))
    for step in range(STEPS_MAX):
        moved = matrix @ basis[step]
        small[step, step] = moved @ basis[step]
        so_far = basis[: step + 1]
        for _ in range(2):  # once would leave what rounding brings back
            moved = moved - so_far.T @ (so_far @ moved)
        length = np.sqrt(np.square(moved).sum())
        if step % LOOK_EVERY == LOOK_EVERY - 1 or not length > 0:
            values, vectors = np.linalg.eigh(small[: step + 1, : step + 1])
            if length * abs(vectors[-1, -1]) <= RESIDUAL * values[-1]:
                return float(values[-1]), vectors[:, -1] @ so_far
        if not length > 0:
            return None
        small[step, step + 1] = small[step + 1, step] = length
        basis[step + 1] = moved / length
    return None
