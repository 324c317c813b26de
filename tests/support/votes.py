"""Votes made by hand or at random, and what the robust rules of the table make of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from fedpg_common.choices import Choice
from fedpg_common.learning.aggregators import Aggregate, Memory, Mixed, RoundPlan, Votes, build_aggregator
from fedpg_common.shipped import PRE_AGGREGATORS
from fedpg_common.tasks import CARTPOLE
from hypothesis import strategies as st
from numpy.typing import NDArray

seeds = st.integers(0, 2**32 - 1)
TASK = dataclasses.replace(CARTPOLE, alpha=0.3)
ROBUST: dict[str, dict[str, Any]] = {
    "median": {}, "trimmed-mean": {}, "meamed": {}, "krum": {}, "multi-krum": {}, "geometric-median": {}, "mda": {},
    "bulyan": {"faulty": 2}, "centered-clipping": {}, "caf": {}, "smea": {}, "monna": {}, "fltrust": {},
    "signguard": {}, "dnc": {},
}  # fmt: skip
"""Rules that promise something, with settings for 12 agents."""


def votes_of(matrix: Any, K: int | None = None, own: list[float] | None = None, number: int = 1) -> Votes:
    """These rows as votes of agents 1, 2, …, and the server's own gradient: the median if it is not given."""
    rows = np.array(matrix, np.float32)
    rows.flags.writeable = False
    trusted = np.median(rows, axis=0) if own is None else np.array(own)
    agents = tuple(range(1, len(rows) + 1))
    return Votes(agents, rows, K or len(rows), RoundPlan(number, 16, 3), TASK, trusted.astype(np.float32))


def aggregated(votes: Votes, name: str, memory: Memory | None = None, **settings: Any) -> Aggregate:
    """What an aggregator of the table makes of votes."""
    return build_aggregator(Choice(name, settings)).aggregate(votes, memory or {})


def mixed(votes: Votes, name: str, **settings: Any) -> Mixed:
    """What a pre-aggregator of the table makes of votes."""
    result: Mixed = PRE_AGGREGATORS.build(Choice(name, settings)).mix(votes)
    return result


def vector_of(result: Aggregate) -> NDArray[np.float64]:
    """μ, which there must be."""
    assert result.vector is not None
    assert result.vector.dtype == np.float32
    return result.vector.astype(np.float64)


def accepted(result: Aggregate) -> list[int]:
    """The agents with a weight."""
    assert result.weights is not None
    return sorted(agent for agent, weight in result.weights.items() if weight)


def honest(seed: int, count: int = 12, size: int = 20) -> NDArray[np.float32]:
    """Votes within about 1 of a vector of length 4 or so."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal(size) + rng.standard_normal((count, size)) / math.sqrt(size)
    return rows.astype(np.float32)
