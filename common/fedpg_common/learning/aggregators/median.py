"""The coordinate-wise median (Yin et al. 2018)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes


class Median:
    """μ_j = median of the votes' coordinate j; of an even number, the mean of the middle two.

    Source: Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
    Rates", ICML 2018.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """The median of each coordinate."""
        return Aggregate(coordinate_median(votes.matrix).astype(np.float32), rule="median")


def coordinate_median(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """The median of each column of (k, d), shape (d,)."""
    ordered = np.sort(matrix, axis=0)
    count = len(ordered)
    middle = ordered[(count - 1) // 2].astype(np.float64) + ordered[count // 2]
    return np.asarray(middle / 2.0)
