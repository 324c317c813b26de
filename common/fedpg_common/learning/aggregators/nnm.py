"""Nearest-neighbour mixing (Allouah et al. 2023)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedpg_common.learning.aggregators.base import Mixed, Votes, mean_vector
from fedpg_common.learning.aggregators.checks import check_faulty


class NearestNeighbourMixing:
    """Each vote becomes the mean of the k − f votes that are nearest to it, itself among them.

    Source: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, "Fixing by Mixing: A Recipe for Optimal Byzantine ML
    under Heterogeneity", AISTATS 2023.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")

    def __init__(self, faulty: int | None = None) -> None:
        """`faulty` is f; ⌊αK⌋ where it is None."""
        check_faulty(faulty)
        self._faulty = faulty

    def mix(self, votes: Votes) -> Mixed:
        """Mix; ties go to the lowest index, and sums run in the order of the agents."""
        count = len(votes.agents)
        faulty = votes.faulty if self._faulty is None else self._faulty
        kept = max(1, count - faulty)
        distances = votes.distances.copy()
        np.fill_diagonal(distances, -1.0)  # a vote is its own nearest neighbour, also among identical ones
        nearest = np.sort(np.argsort(distances, axis=1, kind="stable")[:, :kept], axis=1)
        shares = np.zeros((count, count))
        np.put_along_axis(shares, nearest, 1.0 / kept, axis=1)
        matrix = np.stack([mean_vector(votes.matrix[rows]).astype(np.float32) for rows in nearest])
        return Mixed(matrix, shares)
