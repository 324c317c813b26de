"""How a round's updates become one: pure functions of what arrived and of the task's published settings.

None of them is told who is Byzantine, or how many are.
"""

from __future__ import annotations

from fedpg_server.aggregation.aggregate import Aggregate, Rule
from fedpg_server.aggregation.distances import pairwise_distances
from fedpg_server.aggregation.fedpg import fedpg_aggregate
from fedpg_server.aggregation.mean import mean_aggregate

__all__ = ["Aggregate", "Rule", "fedpg_aggregate", "mean_aggregate", "pairwise_distances"]
