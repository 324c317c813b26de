"""MeaMed, the mean around the coordinate-wise median (Xie et al. 2018)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes
from fedpg_common.learning.aggregators.checks import check_faulty, kept


class MeaMed:
    """μ_j = the mean of the k − f values of coordinate j that are nearest to its median.

    Ties go to the smaller value, so that they do not depend on who sent it. With f or fewer votes μ is the value
    nearest to the median.
    Source: Xie, Koyejo, Gupta, "Generalized Byzantine-tolerant SGD", 2018 (arXiv 1802.10116).
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")

    def __init__(self, faulty: int | None = None) -> None:
        """`faulty` is f; ⌊αK⌋ where it is None."""
        check_faulty(faulty)
        self._faulty = faulty

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """The mean around the median of each coordinate, added from the smallest value on."""
        count = kept(votes, self._faulty)
        vector = mean_around_median(votes.matrix, count).astype(np.float32)
        return Aggregate(vector, rule="meamed", figures={"averaged": float(count)})


def mean_around_median(matrix: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """Per coordinate of (k, d), the mean of the `count` values (1 to k) nearest to the median: shape (d,)."""
    ordered = np.sort(matrix, axis=0).astype(np.float64)
    rows = len(ordered)
    twice_median = ordered[(rows - 1) // 2] + ordered[rows // 2]
    # The nearest are neighbours in sorted order. Their window moves on past each value that is farther below the median
    # than the next one above lies above it: x_r + x_(r + count) < 2 · median, which once false stays so.
    start = np.zeros(matrix.shape[1], dtype=np.int64)
    for row in range(rows - count):
        start += ordered[row] + ordered[row + count] < twice_median
    total = np.zeros(matrix.shape[1], dtype=np.float64)
    for row in range(rows):
        is_within = (start <= row) & (row < start + count)
        total += np.where(is_within, ordered[row], 0.0)
    return total / count
