"""FedPG-Guard on a small task, with the memory that a test gives it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from fedpg_common.choices import Choice
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.algorithms.defence.memory import to_vector
from fedpg_server.learning.learner import Learner
from fedpg_server.learning.state import ALGORITHM, State

GUARDED_TASK = dataclasses.replace(
    CARTPOLE,
    hidden=(8,),
    horizon=30,
    evaluation_horizon=60,
    batch_size=10,
    batch_size_min=8,
    batch_size_max=12,
    baseline="none",
)
AGENTS = 6
PARTS = ("scale", "anchor", "gate", "guard", "bound", "reset")
ROUND = RoundPlan(round_number=4, batch_size=10, inner_steps=3)


@dataclasses.dataclass
class Bench:
    """Makes learners and votes."""

    environments: EnvironmentBatch
    policy: Policy

    def learner(self, algorithm: str = "fedpg-guard", aggregator: str | None = None, **settings: Any) -> Learner:
        """A learner of the small task."""
        chosen = Choice(aggregator) if aggregator else None
        return Learner(
            Federation(GUARDED_TASK, AGENTS, Choice(algorithm, settings), chosen, seed=7),
            self.environments,
            self.policy,
        )

    def updates(self, number: int, agents: int = AGENTS) -> dict[int, Vector]:
        """Gradients about a common one, as honest agents send."""
        rng = np.random.default_rng(number)
        size = self.policy.spec.size
        common = 0.02 * rng.standard_normal(size)
        return {
            agent: (common + 0.002 * rng.standard_normal(size)).astype(np.float32) for agent in range(1, agents + 1)
        }


def with_memory(state: State, **memory: Any) -> State:
    """The state with these vectors in the algorithm's memory."""
    named = {name.replace("__", "/"): to_vector(values) for name, values in memory.items()}
    return state.with_memory(ALGORITHM, {**state.memory(ALGORITHM), **named})


def marks(greedy: list[float], best: float = 50.0, armed: bool = True, rejections: int = 0) -> dict[str, list[float]]:
    """A memory of returns."""
    return {
        "returns__greedy": greedy, "returns__sampled": greedy,
        "returns__marks": [9.0, 9.0, best, best, float(armed), float(rejections)],
    }  # fmt: skip
