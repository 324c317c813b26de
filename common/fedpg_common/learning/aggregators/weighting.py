"""Votes that weigh as much as the trajectories they stand for, in rules whose result is a mean of votes.

Whom a rule believes is a matter of agents, one vote each: f of K may lie. So a rule that chooses by counting votes must
not count trajectories. What may be weighed is the mean that is taken in the end, of all votes or of those that were
accepted: there a weight moves μ within the span of votes that count anyway.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpg_common.checks import show
from fedpg_common.learning.aggregators.base import Votes

WEIGHTINGS = ("agents", "trajectories")
"""One vote each, as published; or by trajectories."""
WEIGHING = ("mean", "fedpg")
"""Which of the shipped rules have the setting."""

Weights = NDArray[np.float64]


def check_weighting(weighting: object) -> None:
    """Raise ValueError unless this is one of `WEIGHTINGS`."""
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be {' or '.join(WEIGHTINGS)}, not {show(weighting)}")


def weights_of(votes: Votes, weighting: str) -> Weights:
    """How much each vote weighs, (k,), as a part of the one that weighs most; ones where votes weigh the same."""
    if weighting == "agents" or votes.trajectories is None:
        return np.ones(len(votes.agents))
    stand_for = np.array(votes.trajectories, np.float64)
    result: Weights = stand_for / stand_for.max()
    return result


def weighted_mean(matrix: NDArray[np.float32], weights: Weights) -> NDArray[np.float64]:
    """The mean of the rows of (k, d) with weights (k,), added in their order: (d,). With ones, `mean_vector`'s bits."""
    total = np.zeros(matrix.shape[1], dtype=np.float64)
    for row, weight in zip(matrix, weights.tolist(), strict=True):
        total += row if weight == 1.0 else weight * row.astype(np.float64)
    result: NDArray[np.float64] = total / weights.sum()
    return result


def effective_votes(weights: Weights) -> float:
    """(Σw)²/Σw²: how many votes of one weight would leave as much noise in their mean."""
    return float(weights.sum() ** 2 / (weights @ weights))
