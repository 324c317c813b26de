"""What FedPG-Aggregate and the mean decide about a few votes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from fedpg_common.learning.aggregators import Aggregate, Aggregator, RoundPlan, Votes
from fedpg_common.learning.aggregators.fedpg import FedPG
from fedpg_common.learning.aggregators.mean import Mean
from fedpg_common.learning.parameters import Vector
from fedpg_common.tasks import CARTPOLE
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float32).max)
DELTA = 0.6
ALPHA = 0.4


def vectors(*rows: Sequence[float]) -> dict[int, Vector]:
    """The rows as the updates of agents 1, 2, …"""
    return {agent: np.array(row, dtype=np.float32) for agent, row in enumerate(rows, start=1)}


def narrow_radius(agents: int, batch_size: int, sigma: float) -> float:
    """𝔗 = 2σ√(V/B_t), V = 2 ln(2K/δ)."""
    return 2 * sigma * math.sqrt(2 * math.log(2 * agents / DELTA) / batch_size)


@dataclass(frozen=True)
class Decision:
    """What an aggregator made of votes."""

    result: Aggregate
    agents: tuple[int, ...]
    distances: NDArray[np.float64]

    @property
    def vector(self) -> Vector | None:
        return self.result.vector

    @property
    def rule(self) -> str:
        return self.result.rule

    @property
    def accepted(self) -> tuple[int, ...]:
        """Whose votes counted; all of them where the rule selects nobody in particular."""
        weights = dict.fromkeys(self.agents, 1.0) if self.result.weights is None else self.result.weights
        return tuple(agent for agent in self.agents if weights.get(agent, 0.0) > 0)

    @property
    def radius(self) -> float:
        return self.result.figures["radius"]

    @property
    def median_agent(self) -> int | None:
        return self.result.median_agent


def decide(
    aggregator: Aggregator, updates: Mapping[int, Vector], agents: int, batch_size: int = 16, alpha: float = ALPHA
) -> Decision:
    """What an aggregator makes of these votes, one at least, whatever the order in which they are given."""
    order = tuple(sorted(updates))
    task = dataclasses.replace(CARTPOLE, alpha=alpha, delta=DELTA)
    votes = Votes(order, np.stack([updates[agent] for agent in order]), agents, RoundPlan(1, batch_size, 1), task)
    votes.matrix.flags.writeable = False
    return Decision(aggregator.aggregate(votes, {}), order, votes.distances)


def aggregate(
    updates: Mapping[int, Vector], agents: int, sigma: float, batch_size: int = 10**6, alpha: float = ALPHA
) -> Decision:
    """The filter; with the default batch size, R1's radius is a hundredth of R2's or less."""
    return decide(FedPG(sigma), updates, agents, batch_size, alpha)


def mean_aggregate(updates: Mapping[int, Vector]) -> Decision:
    """The plain mean."""
    return decide(Mean(), updates, len(updates))
