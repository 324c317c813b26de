"""How a round's votes become one vector, a class for each rule: deterministic functions of the votes and their memory.

None of them is told who is Byzantine, or how many are.
"""

from __future__ import annotations

from fedpg_common.learning.aggregators.base import (
    Aggregate,
    Aggregator,
    Memory,
    Mixed,
    PreAggregator,
    Remembering,
    RoundPlan,
    Selective,
    Tryable,
    Votes,
    mean_vector,
    reference_batch,
)
from fedpg_common.learning.aggregators.composition import build_aggregator, check_federation
from fedpg_common.learning.aggregators.distances import distances_to, pairwise_distances

__all__ = [
    "Aggregate",
    "Aggregator",
    "Memory",
    "Mixed",
    "PreAggregator",
    "Remembering",
    "RoundPlan",
    "Selective",
    "Tryable",
    "Votes",
    "build_aggregator",
    "check_federation",
    "distances_to",
    "mean_vector",
    "pairwise_distances",
    "reference_batch",
]
