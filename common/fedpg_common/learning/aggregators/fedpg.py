"""FedPG-Aggregate: the Byzantine filter of FedPG-BR (Fan et al. 2021, Algorithm 2)."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.checks import is_number, show
from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes, mean_vector
from fedpg_common.learning.aggregators.checks import check_positive
from fedpg_common.learning.aggregators.distances import distances_to
from fedpg_common.learning.aggregators.weighting import check_weighting, effective_votes, weighted_mean, weights_of

Rows = NDArray[np.int64]
"""Row numbers of the matrix of votes, ascending."""


class FedPG:
    """Average the votes that a majority of the federation agrees with.

    R1 looks within 𝔗 = 2σ√(V/B_t), V = 2 ln(2K/δ), of the vector median, and R2 within 2σ where R1 leaves fewer than
    K − ⌊αK⌋. Who is absent counts as faulty. docs/algorithm.md, "Aggregation" and "Batches of different sizes".
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift",)

    def __init__(self, sigma: float | None = None, delta: float | None = None, weighting: str = "agents") -> None:
        """`sigma` bounds the spread of honest votes, `delta` is the confidence; the task's own where they are None.

        `weighting`, in the mean over G alone: "agents", one vote each, or "trajectories", as many as a vote stands for.
        """
        check_positive("sigma", sigma)
        if delta is not None and not (is_number(delta) and 0 < delta < 1):
            raise ValueError(f"delta must be between 0 and 1, not {show(delta)}")
        check_weighting(weighting)
        self._sigma = sigma
        self._delta = delta
        self._weighting = weighting

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """The mean over G. Sums run in the order of the agents, and ties go to the lowest index."""
        K = votes.federation_size
        sigma = votes.task.sigma if self._sigma is None else self._sigma
        delta = votes.task.delta if self._delta is None else self._delta

        narrow, wide = radii(sigma, delta, K, votes.plan.batch_size)
        reach = None if votes.batch_sizes is None else reaches(sigma, delta, K, votes.batch_sizes)
        rule, radius = "R1", narrow
        median, good = _near_the_median(votes, narrow if reach is None else reach)
        if reach is not None and median is not None:
            radius = float(reach[median].max())
        if len(good) < K - votes.faulty or not len(good):
            rule, radius = "R2", wide
            median, good = _near_the_median(votes, wide)

        weights = weights_of(votes, self._weighting)[good]
        figures = {"radius": radius}
        if self._weighting == "trajectories" and len(good):
            figures["effective-votes"] = effective_votes(weights)
        return Aggregate(
            vector=weighted_mean(votes.matrix[good], weights).astype(np.float32) if len(good) else None,
            rule=rule if len(good) else "none",
            weights=dict(zip((votes.agents[row] for row in good), weights.tolist(), strict=True)),
            figures=figures,
            median_agent=None if median is None else votes.agents[median],
        )


def radii(sigma: float, delta: float, K: int, batch_size: int) -> tuple[float, float]:
    """The radii of R1, which is 𝔗, and of R2."""
    V = 2.0 * math.log(2.0 * K / delta)
    return 2.0 * sigma * math.sqrt(V / batch_size), 2.0 * sigma


def reaches(sigma: float, delta: float, K: int, batch_sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far two honest votes of B_j and B_k trajectories may lie apart, (k, k): e_j + e_k, e = σ min(1, √(V/B))."""
    V = 2.0 * math.log(2.0 * K / delta)
    bounds = sigma * np.minimum(1.0, np.sqrt(V / batch_sizes))
    return np.add.outer(bounds, bounds)


def _near_the_median(votes: Votes, radius: float | NDArray[np.float64]) -> tuple[int | None, Rows]:
    """The row of the vector median μ_mom, and G: the rows within `radius` of it. (None, empty) if S is empty.

    The radius is one for all, or one for each pair, (k, k).
    """
    is_near = votes.distances <= radius
    S = np.flatnonzero(is_near.sum(axis=1) > votes.federation_size / 2)
    if not len(S):
        return None, S
    # argmin takes the first of equals.
    median = int(S[np.argmin(distances_to(mean_vector(votes.matrix[S]), votes.matrix[S]))])
    return median, np.flatnonzero(is_near[median])
