"""What an aggregation rule makes of a round's updates."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from fedpg_common.parameters import Vector
from numpy.typing import NDArray


class Rule(StrEnum):
    """Which rule decided who is averaged."""

    R1 = "R1"
    """FedPG-Aggregate with the narrow radius 𝔗."""
    R2 = "R2"
    """FedPG-Aggregate with the wide radius 2σ."""
    MEAN = "mean"
    """Everybody, without a filter."""
    NONE = "none"
    """Nobody: no update arrived, or none survived."""


@dataclass(frozen=True, eq=False)
class Aggregate:
    """A round's μ and how it came about. Agents are 1-based indices, in ascending order."""

    vector: Vector | None
    """μ, shape (d,); None when nobody was accepted."""
    rule: Rule
    accepted: tuple[int, ...]
    """G: whose vectors were averaged."""
    agents: tuple[int, ...]
    """Whose vectors arrived: the order of the rows of `distances`."""
    distances: NDArray[np.float64]
    """Euclidean distances between the vectors that arrived, shape (k, k)."""
    radius: float
    """The radius of the deciding rule, or of the last one tried; 0 without a filter."""
    median_agent: int | None
    """Whose vector is μ_mom; None without a filter or when no vector has a majority near it."""


def mean_vector(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean of the rows of (k, d), added in their order: shape (d,), float64."""
    total = np.zeros(matrix.shape[1], dtype=np.float64)
    for row in matrix:
        total += row
    return total / len(matrix)
