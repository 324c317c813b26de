"""FedPG-Guard's anchor raises an alarm when the majority leaves the server's own gradient, and hears who agrees."""

from __future__ import annotations

import math

import numpy as np
from fedpg_common.learning.aggregators import RoundPlan, Votes
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy
from fedpg_server.learning.algorithms.base import Tools
from fedpg_server.learning.algorithms.defence.anchor import Anchor, Measured
from fedpg_server.learning.algorithms.fedpg_guard import FedPGGuard
from fedpg_server.learning.state import ADAM_V, ALGORITHM
from support.guarded import AGENTS, GUARDED_TASK, ROUND, Bench, with_memory

TASK = GUARDED_TASK
SIZE = 200


def anchored(rounds: int, captured: int, absent: int = 0) -> tuple[Anchor, dict[str, Vector], list[float]]:
    """An anchor after rounds in which so many of ten agents stand two scales away, and μ's deviation in each round."""
    rng = np.random.default_rng(0)
    anchor, memory, course = Anchor(10, SIZE, [1, 2]), dict[str, Vector](), list[float]()
    for number in range(1, rounds + 1):
        rows = rng.standard_normal((10, SIZE)) / math.sqrt(SIZE)
        rows[:captured, 0] += 2.0
        own = rng.standard_normal(SIZE) / math.sqrt(SIZE)
        agents = tuple(agent for agent in range(1, 11) if agent != absent or number <= 3)
        matrix = rows[[agent - 1 for agent in agents]].astype(np.float32)
        votes = Votes(agents, matrix, 10, RoundPlan(number, 16, 3), TASK)
        now = Measured(votes, matrix.mean(axis=0), 1 / len(agents), own, own_trajectories=16, scale=1.0)
        memory = {**memory, **anchor.learn(memory, now)}
        course.append(float(anchor.deviations(memory)[-1]))
    return anchor, memory, course


def test_an_honest_federation_raises_no_alarm() -> None:
    anchor, memory, course = anchored(120, captured=0)
    assert max(course) < 2.5
    assert max(anchor.deviations(memory)) < 3.5
    assert not anchor.is_alarm(memory)
    assert anchor.trusted(memory, tuple(range(1, 11))) == tuple(range(1, 11))


def test_a_captured_majority_raises_one_and_is_told_apart() -> None:
    anchor, memory, _ = anchored(120, captured=7)
    assert anchor.is_alarm(memory)
    assert anchor.trusted(memory, tuple(range(1, 11))) == (8, 9, 10)
    assert anchor.trusted(memory, (1, 2, 3, 9, 10)) == (), "two are too few"


def test_the_anchor_keeps_the_history_of_an_absent_agent() -> None:
    anchor, early, _ = anchored(3, captured=2, absent=1)
    _, late, _ = anchored(60, captured=2, absent=1)
    assert anchor.deviations(late)[0] == anchor.deviations(early)[0]


def test_during_an_alarm_only_agents_that_agree_with_the_server_are_heard(bench: Bench) -> None:
    learner = bench.learner()
    memory = {"anchor__alarm": [1.0, 1.0], "anchor__deviation": [9.0, 9.0, 1.0, 1.0, 1.0, 4.0, 8.0]}
    state = with_memory(learner.initial_state(), **memory)
    state = state.with_vectors({ADAM_V: np.ones_like(state.theta)}, steps=500)
    result = learner.improve(state, ROUND, bench.updates(4))
    assert result.aggregate.weights is not None
    assert set(result.aggregate.weights) == {3, 4, 5}
    assert result.votes.agents == tuple(range(1, AGENTS + 1)), "the records have all votes"
    assert result.state.steps < 100, "Adam starts afresh at the onset"
    assert result.state.vectors[ADAM_V].max() < 0.1
    too_few = with_memory(state, anchor__deviation=[9.0, 9.0, 9.0, 9.0, 1.0, 4.0, 8.0])
    assert learner.improve(too_few, ROUND, bench.updates(4)).aggregate.vector is None
    kept = bench.learner(reset=False).improve(state, ROUND, bench.updates(4))
    assert kept.state.steps >= 500
    everyone = bench.learner(anchor=False).improve(state, ROUND, bench.updates(4))
    assert set(everyone.aggregate.weights or {}) == set(range(1, AGENTS + 1))


def test_without_votes_to_look_at_it_improves_on_mu_alone(bench: Bench, policy: Policy) -> None:
    tools = Tools(TASK, AGENTS, policy, 7, bench.environments)
    mu = bench.updates(1)[1]
    state, report = FedPGGuard(tools).improve(bench.learner().initial_state(), ROUND, mu)
    assert report.steps_taken > 0
    assert "anchor-deviation" not in report.figures
    assert state.memory(ALGORITHM)
