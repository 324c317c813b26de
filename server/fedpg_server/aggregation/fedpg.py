"""FedPG-Aggregate: FedPG-BR's Byzantine filter (Fan et al. 2021, Algorithm 2; docs/algorithm.md, "Aggregation")."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from fedpg_common.parameters import Vector
from numpy.typing import NDArray

from fedpg_server.aggregation.aggregate import Aggregate, Rule, mean_vector
from fedpg_server.aggregation.distances import distances_to, pairwise_distances

Rows = NDArray[np.int64]
"""Row numbers of the matrix of updates, ascending."""


def fedpg_aggregate(
    updates: Mapping[int, Vector], *, agents: int, batch_size: int, sigma: float, delta: float, alpha: float
) -> Aggregate:
    """Average the updates that a majority of the federation agrees with.

    `updates` are finite vectors (d,) by 1-based agent index. `agents` is K, the size of the federation: who is absent
    counts as faulty. `batch_size` is B_t; σ bounds the spread of honest updates, δ is the confidence, and α the
    largest fraction of faulty agents. Sums run in the order of the agents, and ties go to the lowest index, so that
    the result does not depend on the order of arrival.
    """
    K = agents
    order = tuple(sorted(updates))
    if not order:
        return Aggregate(None, Rule.NONE, (), (), np.zeros((0, 0)), radius=0.0, median_agent=None)
    matrix = np.stack([updates[agent] for agent in order])
    distances = pairwise_distances(matrix)

    V = 2.0 * math.log(2.0 * K / delta)
    rule, radius = Rule.R1, 2.0 * sigma * math.sqrt(V / batch_size)
    median, good = _near_the_median(matrix, distances, radius, K)
    # |G| < (1−α)K in whole numbers: in floating point, (1 − 0.42) · 50 is a little more than 29.
    good_at_least = K - math.floor(alpha * K + 1e-9)
    if len(good) < good_at_least or not len(good):
        rule, radius = Rule.R2, 2.0 * sigma
        median, good = _near_the_median(matrix, distances, radius, K)

    return Aggregate(
        vector=mean_vector(matrix[good]).astype(np.float32) if len(good) else None,
        rule=rule if len(good) else Rule.NONE,
        accepted=tuple(order[row] for row in good),
        agents=order,
        distances=distances,
        radius=radius,
        median_agent=None if median is None else order[median],
    )


def _near_the_median(
    matrix: NDArray[np.float32], distances: NDArray[np.float64], radius: float, K: int
) -> tuple[int | None, Rows]:
    """The row of the vector median μ_mom, and G: the rows within `radius` of it. (None, empty) if S is empty."""
    is_near = distances <= radius
    S = np.flatnonzero(is_near.sum(axis=1) > K / 2)
    if not len(S):
        return None, S
    # argmin takes the first of equals.
    median = int(S[np.argmin(distances_to(mean_vector(matrix[S]), matrix[S]))])
    return median, np.flatnonzero(is_near[median])
