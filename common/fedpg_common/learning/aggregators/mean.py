"""The plain mean, as SVRPG and GPOMDP aggregate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from fedpg_common.parameters import Vector

from fedpg_server.aggregation.aggregate import Aggregate, Rule, mean_vector
from fedpg_server.aggregation.distances import pairwise_distances


def mean_aggregate(updates: Mapping[int, Vector]) -> Aggregate:
    """The mean of all updates, which are finite vectors (d,) by 1-based agent index.

    The distances are for the telemetry; nothing here depends on them.
    """
    agents = tuple(sorted(updates))
    if not agents:
        return Aggregate(None, Rule.NONE, (), (), np.zeros((0, 0)), radius=0.0, median_agent=None)
    matrix = np.stack([updates[agent] for agent in agents])
    return Aggregate(
        vector=mean_vector(matrix).astype(np.float32),
        rule=Rule.MEAN,
        accepted=agents,
        agents=agents,
        distances=pairwise_distances(matrix),
        radius=0.0,
        median_agent=None,
    )
