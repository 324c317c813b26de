"""The work of a simulated federation: small functions of the same arguments as the real ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from fedpg_common.federation import Federation
from fedpg_common.parameters import Vector
from fedpg_common.streams import Purpose, Role, stream
from fedpg_server.aggregation import fedpg_aggregate
from fedpg_server.learner import InnerReport, LearnerState, RoundPlan, RoundResult
from support import SIZE


class SimulatedLearner:
    """FedPG-Aggregate and a plain step along μ; one trajectory a round."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation

    def plan(self, round_number: int) -> RoundPlan:
        return RoundPlan(round_number, batch_size=1 + round_number % 3, inner_steps=0)

    def improve(self, state: LearnerState, plan: RoundPlan, updates: Mapping[int, Vector]) -> RoundResult:
        aggregate = fedpg_aggregate(
            updates, agents=self._federation.agents, batch_size=plan.batch_size, sigma=1.0, delta=0.6, alpha=0.4
        )
        mu = np.zeros(SIZE, np.float32) if aggregate.vector is None else aggregate.vector
        after = LearnerState(state.theta - mu / np.float32(3), state.adam_m + mu, state.adam_v, state.adam_steps + 1)
        return RoundResult(
            after, aggregate, gradient_norm=0.0, inner=InnerReport(), trajectories=1, evaluation_returns=(0.0,),
            evaluation_lengths=(0,), learning_rate=0.0,
        )  # fmt: skip


def gradient_of(agent: int, round_number: int, theta: Vector) -> Vector:
    """What an agent computes in a round: as of a real one, it follows from these three alone."""
    noise = stream(0, Role.AGENT, Purpose.ACTION, agent=agent, round_number=round_number).standard_normal(SIZE)
    return (theta / 7 + noise).astype(np.float32)
