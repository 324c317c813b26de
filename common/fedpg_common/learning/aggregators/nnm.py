"""Nearest-neighbour mixing (Allouah et al. 2023)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.aggregators.base import Mixed, Votes
from fedpg_common.learning.aggregators.checks import check_faulty

TILE_DIMENSIONS = 512
"""Dimensions taken at a time, so that the table of sums stays in the cache."""


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
        """Mix; ties go to the lowest index, and sums run in the order of the agents, eight at a time."""
        count = len(votes.agents)
        faulty = votes.faulty if self._faulty is None else self._faulty
        kept = max(1, count - faulty)
        distances = votes.distances.copy()
        np.fill_diagonal(distances, -1.0)  # a vote is its own nearest neighbour, also among identical ones
        nearest = np.sort(np.argsort(distances, axis=1, kind="stable")[:, :kept], axis=1)
        shares = np.zeros((count, count))
        np.put_along_axis(shares, nearest, 1.0 / kept, axis=1)
        return Mixed((sums_of(votes.matrix, shares > 0) / kept).astype(np.float32), shares)


def sums_of(matrix: NDArray[np.float32], is_in: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sums of the rows of (k, d) that are in each of m sets, (m, k): shape (m, d).

    Of each eight rows all 256 possible sums are made once, and looked up: many sets share them. Nothing is subtracted,
    and no set sees a number of a row that is not in it.
    """
    codes = np.packbits(is_in, axis=1, bitorder="little")
    sums = np.zeros((len(is_in), matrix.shape[1]), dtype=np.float64)
    for start in range(0, matrix.shape[1], TILE_DIMENSIONS):
        tile = matrix[:, start : start + TILE_DIMENSIONS].astype(np.float64)
        for block in range(codes.shape[1]):
            table = np.zeros((1, tile.shape[1]))
            for row in tile[8 * block : 8 * block + 8]:
                table = np.concatenate([table, table + row])
            sums[:, start : start + TILE_DIMENSIONS] += table[codes[:, block]]
    return sums
