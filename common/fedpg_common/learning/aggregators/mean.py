"""The plain mean, as SVRPG and GPOMDP aggregate."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes, mean_vector


class Mean:
    """μ = (1/k) Σ μ^(k): everybody, without a filter."""

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")
    resists: ClassVar[bool] = False

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """The mean of all votes, added in the order of the agents."""
        return Aggregate(mean_vector(votes.matrix).astype(np.float32), rule="mean")
