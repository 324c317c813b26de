"""The distances between a round's gradients, packed so that a run's records stay small: for pictures afterwards."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

VOTERS_MAX = 50
"""A round of more voters keeps none: they would take 5 kB a round and more."""
FINITE_MAX = float(np.finfo(np.float32).max)


def pack(distances: NDArray[np.float64]) -> str | None:
    """Base64 of what lies above the diagonal of a (k, k) matrix, row by row, as little-endian float32.

    None for more than VOTERS_MAX voters.
    """
    if len(distances) > VOTERS_MAX:
        return None
    triangle = distances[np.triu_indices(len(distances), 1)]
    return base64.b64encode(np.minimum(triangle, FINITE_MAX).astype("<f4").tobytes()).decode("ascii")


def unpack(text: str, voters: int) -> NDArray[np.float64]:
    """The (k, k) matrix of so many voters. Raises ValueError for a text of another size."""
    triangle = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)
    if len(triangle) != voters * (voters - 1) // 2:
        raise ValueError(f"distances between {voters} voters, not {len(triangle)} of them")
    distances = np.zeros((voters, voters))
    distances[np.triu_indices(voters, 1)] = triangle
    return distances + distances.T
