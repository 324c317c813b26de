"""The plain mean, as SVRPG and GPOMDP aggregate."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes
from fedpg_common.learning.aggregators.weighting import check_weighting, effective_votes, weighted_mean, weights_of


class Mean:
    """μ = (1/k) Σ μ^(k): everybody, without a filter. Or Σ B_k μ^(k) / Σ B_k, with `weighting="trajectories"`."""

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")
    resists: ClassVar[bool] = False

    def __init__(self, weighting: str = "agents") -> None:
        """`weighting`: "agents", one vote each, or "trajectories", as many as a vote stands for."""
        check_weighting(weighting)
        self._weighting = weighting

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """The mean of all votes, added in the order of the agents."""
        weights = weights_of(votes, self._weighting)
        figures = {"effective-votes": effective_votes(weights)} if self._weighting == "trajectories" else {}
        return Aggregate(weighted_mean(votes.matrix, weights).astype(np.float32), rule="mean", figures=figures)
