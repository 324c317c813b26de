"""The pre-aggregator `momentum` hands each agent's moving mean to the rule behind it, and keeps it over restarts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import Aggregate, RoundPlan, Votes, build_aggregator
from fedpg_common.learning.aggregators.momentum import Momentum
from fedpg_common.learning.parameters import Vector
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.state import AGGREGATOR, THETA, State, digest_of, from_bytes, to_bytes

K, SIZE = 10, 40
BEHIND_MOMENTUM: Mapping[str, Any] = {"after": [{"name": "momentum", "beta": 0.9}]}


def votes(rows: Mapping[int, Any], number: int = 1) -> Votes:
    """Votes by agent."""
    agents = tuple(sorted(rows))
    matrix = np.array([rows[agent] for agent in agents], np.float32)
    matrix.flags.writeable = False
    return Votes(agents, matrix, K, RoundPlan(number, 16, 3), CARTPOLE)


def play(rounds: Sequence[Mapping[int, Any]], choice: Choice) -> list[Aggregate]:
    """What the rule makes of rounds, each with the memory of the one before."""
    memory: Mapping[str, Vector] = {}
    made = []
    for number, rows in enumerate(rounds, start=1):
        made.append(build_aggregator(choice).aggregate(votes(rows, number), memory))
        memory = made[-1].memory
    return made


def test_the_mean_by_hand_of_an_agent_that_was_absent_and_of_a_newcomer() -> None:
    """β = 0.5. Agent 1: 8, absent, 2: (0.25 · 8 + 0.5 · 2)/0.75 = 4. Agent 2, new in round 3: its vote."""
    first, memory = Momentum(0.5).mix_remembering(votes({1: [8.0]}), {})
    assert first.matrix.tolist() == [[8.0]]
    absent, memory = Momentum(0.5).mix_remembering(votes({3: [1.0]}, 2), memory)
    assert absent.matrix.tolist() == [[1.0]]
    third, memory = Momentum(0.5).mix_remembering(votes({1: [2.0], 2: [7.0]}, 3), memory)
    assert third.matrix.tolist() == [[4.0], [7.0]]
    assert third.shares.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert memory["rounds"].tolist() == [2, 1, 1, *[0] * 7]


def test_a_steady_push_within_the_noise_is_seen_by_the_rule_behind_it() -> None:
    """Three of ten stand half of the honest spread away, all in one direction: too near for one round's median."""
    rng = np.random.default_rng(3)
    direction = np.ones(SIZE) / np.sqrt(SIZE)
    rounds = []
    for _ in range(60):
        noise = rng.standard_normal((K, SIZE)) / np.sqrt(SIZE)
        noise[:3] = -direction
        rounds.append(dict(enumerate(noise, start=1)))
    alone = play(rounds, Choice("geometric-median"))
    behind = play(rounds, Choice("geometric-median", dict(BEHIND_MOMENTUM)))

    def pushed(made: list[Aggregate]) -> float:
        along = [float(one.vector @ direction) for one in made[30:] if one.vector is not None]
        return float(-np.mean(along))

    assert pushed(behind) < 0.7 * pushed(alone)


@pytest.mark.parametrize("name", ["geometric-median", "centered-clipping", "history"])
def test_a_restart_changes_no_bit_and_memories_are_kept_apart(name: str) -> None:
    rng = np.random.default_rng(5)
    rounds = [dict(enumerate(rng.standard_normal((K, SIZE)), start=1)) for _ in range(4)]
    choice = Choice(name, dict(BEHIND_MOMENTUM))
    stayed = play(rounds, choice)
    memory: Mapping[str, Vector] = {}
    for number, rows in enumerate(rounds, start=1):
        made = build_aggregator(choice).aggregate(votes(rows, number), memory)
        state = State({THETA: np.zeros(3, np.float32)}, number).with_memory(AGGREGATOR, made.memory)
        stored = State({name: from_bytes(to_bytes(row)) for name, row in state.vectors.items()}, state.steps)
        assert digest_of(stored) == digest_of(state)
        memory = stored.memory(AGGREGATOR)
    assert stayed[-1].vector is not None
    assert made.vector is not None
    assert made.vector.tobytes() == stayed[-1].vector.tobytes()
    assert {"before/1/mean", "before/1/rounds"} <= set(memory)
    assert made.weights is None or set(made.weights) == set(range(1, K + 1))


def test_the_largest_votes_leave_it_finite() -> None:
    rows = {agent: np.full(SIZE, 3e38 if agent < 5 else 0.1) for agent in range(1, K + 1)}
    made = play([rows, rows, {agent: -row for agent, row in rows.items()}], Choice("median", dict(BEHIND_MOMENTUM)))
    assert all(np.isfinite(vector).all() for vector in made[-1].memory.values())
    assert made[-1].vector is not None
    assert np.isfinite(made[-1].vector).all()


@pytest.mark.parametrize("beta", [-0.1, 1.0, "0.9", True])
def test_a_wrong_beta_is_one_sentence(beta: object) -> None:
    choice = Choice("median", {"after": [{"name": "momentum", "beta": beta}]})
    with pytest.raises(UsageError, match=r"pre-aggregator momentum: beta must be a number from 0 to 0\.9999, not"):
        build_aggregator(choice)
