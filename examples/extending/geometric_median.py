"""An aggregator: the geometric median of the votes, by Weiszfeld's algorithm.

fedpg train --byzantine 3 --aggregator geometric_median:GeometricMedian --set steps=20
"""

from __future__ import annotations

import numpy as np
from fedpg_common.learning.aggregators import Aggregate, Memory, Votes


class GeometricMedian:
    """The point whose distances to all votes have the least sum. One vote cannot pull it far."""

    equivariant = ("shift", "scale")

    def __init__(self, steps: int = 50) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        self._steps = steps

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        rows = votes.matrix.astype(np.float64)
        point = np.median(rows, axis=0)
        for _ in range(self._steps):
            distances = np.linalg.norm(rows - point, axis=1)
            distances = np.maximum(distances, 1e-6 * np.median(distances))  # a vote that it meets does not hold it
            if not distances.all():  # more than half of the votes are here
                break
            pull = distances.min() / distances
            point = pull @ rows / pull.sum()
        distances = np.linalg.norm(rows - point, axis=1)
        figures = {"spread": float(np.median(distances))}
        return Aggregate(point.astype(np.float32), rule="geometric median", figures=figures)
