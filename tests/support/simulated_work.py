"""The work of a simulated federation: small functions of the same arguments as the real ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan, Votes
from fedpg_common.learning.aggregators.fedpg import FedPG
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.streams import Purpose, Role, stream
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.algorithms.base import InnerReport
from fedpg_server.learning.learner import RoundResult
from fedpg_server.learning.records import Evaluation
from fedpg_server.learning.state import ADAM_M, THETA, State
from support.protocol import SIZE


class SimulatedLearner:
    """FedPG-Aggregate and a plain step along μ; one trajectory a round."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation

    def plan(self, round_number: int) -> RoundPlan:
        return RoundPlan(round_number, batch_size=1 + round_number % 3, inner_steps=0)

    def improve(self, state: State, plan: RoundPlan, updates: Mapping[int, Vector]) -> RoundResult:
        votes = Votes(tuple(updates), np.stack(list(updates.values())), self._federation.agents, plan, CARTPOLE)
        aggregate = FedPG(sigma=1.0).aggregate(votes, {})
        mu = np.zeros(SIZE, np.float32) if aggregate.vector is None else aggregate.vector
        moved = {THETA: state.theta - mu / np.float32(3), ADAM_M: state.vectors[ADAM_M] + mu}
        return RoundResult(
            state.with_vectors(moved, state.steps + 1), votes, aggregate, {}, gradient_norm=0.0,
            inner=InnerReport(), trajectories=1, learning_rate=0.0,
        )  # fmt: skip

    def evaluate(self, theta: Vector, round_number: int) -> Evaluation:
        return Evaluation(returns=(float(theta[0]), float(round_number)), lengths=(round_number, 1))


def gradient_of(agent: int, round_number: int, theta: Vector) -> Vector:
    """What an agent computes in a round: as of a real one, it follows from these three alone."""
    noise = stream(0, Role.AGENT, Purpose.ACTION, agent=agent, round_number=round_number).standard_normal(SIZE)
    return (theta / 7 + noise).astype(np.float32)
