"""What the checks of an aggregator are made with: votes, honest and attacked, and results to compare."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from fedpg_common.choices import Choice
from fedpg_common.learning.aggregators import (
    Aggregate,
    Aggregator,
    Memory,
    RoundPlan,
    Votes,
    build_aggregator,
)
from fedpg_common.learning.parameters import Vector
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.answers import checked_aggregate
from fedpg_server.learning.state import State, digest_of
from numpy.typing import NDArray

AGENTS, SIZE = 10, 40
SPREAD = 0.01
"""How far honest votes lie from each other: within the radius of CartPole's published σ."""
ROUNDS = 4
HUGE = (1e2, 1e6, 1e20, 3e38)
"""Sizes of an attacker's entries."""
BOUND = 10.0
"""How many times the honest votes' own spread the result may lie from their mean, whatever attackers send."""
TOLERANCE = 1e-3
"""For what is equal but for rounding, as a part of the spread."""
FULL, QUICK = (1000, 10_000), (100, 1000)
SECONDS_MAX, MEMORY_MAX_MB = 20.0, 2000.0
"""What a round may take with 1,000 agents and 10,000 numbers each."""

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Bench:
    """An aggregator as the server would call it."""

    choice: Choice

    def build(self) -> Aggregator:
        """A new one, as after a restart."""
        return build_aggregator(self.choice)

    def once(self, rows: Mapping[int, Rows], memory: Memory | None = None, K: int = AGENTS) -> Aggregate:
        """One round of a new one. Raises UsageError, as the server would, where it breaks a promise."""
        return run(self.build(), votes_of(rows, K), memory or {})


def run(aggregator: Aggregator, votes: Votes, memory: Memory) -> Aggregate:
    """One round, its answer checked as the server checks it."""
    return checked_aggregate(lambda: aggregator.aggregate(votes, memory), votes, "")


def votes_of(rows: Mapping[int, Rows], K: int = AGENTS, round_number: int = 1) -> Votes:
    """Votes by agent, read-only, in the order of the agents."""
    agents = tuple(sorted(rows))
    matrix = np.stack([rows[agent] for agent in agents])
    matrix.flags.writeable = False
    task = replace(CARTPOLE, alpha=0.4)
    # An algorithm may hand in the server's own gradient: here it is an honest vote's.
    return Votes(agents, matrix, K, RoundPlan(round_number, 16, 3), task, server_gradient=centre(round_number))


def centre(round_number: int, size: int = SIZE) -> Vector:
    """What honest votes scatter about in a round, shape (d,)."""
    rng = np.random.default_rng([7, round_number])
    return (0.02 * rng.standard_normal(size)).astype(np.float32)


def honest(count: int = AGENTS, round_number: int = 1, seed: int = 0) -> dict[int, Rows]:
    """Honest votes of agents 1 to `count`."""
    rng = np.random.default_rng([seed, round_number])
    noise = rng.standard_normal((count, SIZE)) * SPREAD / math.sqrt(SIZE)
    return {agent: (centre(round_number) + row).astype(np.float32) for agent, row in enumerate(noise, start=1)}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def attacked(count: int, size: float, kind: str = "together", round_number: int = 1) -> dict[int, Rows]:
    """Votes of which the first `count` are an attacker's, with entries of about `size`."""
    votes = honest(round_number=round_number)
    direction = np.random.default_rng([11, round_number]).choice([-1.0, 1.0], SIZE)
    limit = float(np.finfo(np.float32).max)
    for agent in range(1, count + 1):
        own = np.random.default_rng([13, agent, round_number]).choice([-1.0, 1.0], SIZE)
        bad = {"together": direction, "apart": own, "opposite": direction * (-1) ** agent}[kind] * size
        votes[agent] = np.clip(bad + votes[agent], -limit, limit).astype(np.float32)
    return votes


def bits(result: Aggregate) -> tuple[object, ...]:
    """All that an answer says, to the bit."""
    memory = State(dict(result.memory))
    vector = None if result.vector is None else result.vector.tobytes()
    weights = None if result.weights is None else sorted(result.weights.items())
    return vector, result.rule, weights, sorted(result.figures.items()), digest_of(memory), result.median_agent


def distance(one: Vector, other: Vector) -> float:
    return float(np.linalg.norm(one.astype(np.float64) - other))


def near(one: Vector, other: Vector, scale: float) -> bool:
    return distance(one, other) <= TOLERANCE * scale
