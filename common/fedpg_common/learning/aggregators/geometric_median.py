"""The geometric median by the smoothed Weiszfeld algorithm (RFA: Pillutla et al. 2022)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes
from fedpg_common.learning.aggregators.checks import check_count, check_positive
from fedpg_common.learning.aggregators.distances import distances_to
from fedpg_common.learning.aggregators.median import coordinate_median

STEPS_MAX = 1000
SMOOTHING = 1e-6
"""ν as a part of the votes' median distance from the start, where no `smoothing` is set."""


class GeometricMedian:
    """μ = argmin_z Σ ‖z − μ^(k)‖, approached by z ← Σ β_k μ^(k) / Σ β_k with β_k = 1 / max(ν, ‖z − μ^(k)‖).

    It starts at the coordinate-wise median and takes a fixed number of steps, so that its cost is bounded and μ is
    bounded after any number of them. Every vote counts, so that no agent is reported as filtered.
    Source: Pillutla, Kakade, Harchaoui, "Robust Aggregation for Federated Learning", IEEE Transactions on Signal
    Processing 70, 2022; Weiszfeld 1937.
    """

    def __init__(self, steps: int = 32, smoothing: float | None = None) -> None:
        """`smoothing` is ν, a length; one millionth of the median distance from the start where it is None."""
        check_count("steps", steps, STEPS_MAX)
        check_positive("smoothing", smoothing)
        self._steps = steps
        self._smoothing = smoothing
        # A fixed length does not grow with the votes.
        self.equivariant = ("shift",) if smoothing is not None else ("shift", "scale")

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """The geometric median of all votes, which are added in the order of the agents."""
        start = coordinate_median(votes.matrix)
        smoothing = self._smoothing
        if smoothing is None:
            smoothing = SMOOTHING * float(np.median(distances_to(start, votes.matrix)))
        point = weiszfeld(votes.matrix, start, smoothing, self._steps)
        spread = float(np.median(distances_to(point, votes.matrix)))
        return Aggregate(point.astype(np.float32), rule="geometric median", figures={"median-distance": spread})


def weiszfeld(
    matrix: NDArray[np.float32], start: NDArray[np.float64], smoothing: float, steps: int
) -> NDArray[np.float64]:
    """Smoothed Weiszfeld steps from `start` (d,) over the rows of (k, d): the point reached, shape (d,).

    With a `smoothing` of 0 it stops at a row that it meets.
    """
    point = start
    for _ in range(steps):
        distances = np.maximum(distances_to(point, matrix), smoothing)
        if not distances.all():
            break
        # Relative to the nearest, so that neither tiny nor huge distances leave float64.
        pulls = distances.min() / distances
        total = np.zeros(matrix.shape[1], dtype=np.float64)
        for pull, row in zip(pulls, matrix, strict=True):
            total += pull * row
        point = total / pulls.sum()
    return point
