"""A round has the same bits from stored state, in any order of arrival and whoever is said to attack."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import Vector
from fedpg_server.learning.learner import Learner, RoundResult
from fedpg_server.learning.state import State
from support.plain_learning import ROUND, SEED, SMALL_TASK, Bench, bits, gradients

TASK = SMALL_TASK


def run_rounds(learner: Learner, state: State, rounds: range, updates: Mapping[int, Vector]) -> RoundResult:
    """Several rounds with the same updates."""
    for round_number in rounds:
        result = learner.improve(state, learner.plan(round_number), updates)
        state = result.state
    return result


@pytest.mark.parametrize("algorithm", ["fedpg-br", "svrpg", "gpomdp"])
def test_a_round_recomputed_from_stored_bytes_has_the_same_bits(bench: Bench, algorithm: str) -> None:
    updates = gradients(bench.policy)
    learner = bench.learner(algorithm)
    whole = run_rounds(learner, learner.initial_state(), range(1, 5), updates)
    half = run_rounds(learner, learner.initial_state(), range(1, 3), updates).state
    stored = {name: np.frombuffer(vector.tobytes(), dtype="<f4") for name, vector in half.vectors.items()}
    restarted = bench.learner(algorithm)
    rest = run_rounds(restarted, State(stored, half.steps), range(3, 5), updates)
    assert bits(rest.state) == bits(whole.state)
    assert restarted.evaluate(rest.state.theta, 4) == learner.evaluate(whole.state.theta, 4)
    assert rest.inner == whole.inner


def test_neither_arrival_order_nor_the_description_of_attackers_matters(bench: Bench) -> None:
    updates = gradients(bench.policy)
    reversed_ = dict(sorted(updates.items(), reverse=True))
    described = Federation(TASK, 5, seed=SEED, byzantine={1: Choice("zero-gradient")})
    outcomes = {
        bits(run_rounds(learner, learner.initial_state(), range(1, 4), arrivals).state)
        for learner, arrivals in (
            (bench.learner("fedpg-br"), updates),
            (bench.learner("fedpg-br"), reversed_),
            (Learner(described, bench.environments, bench.policy), updates),
        )
    }
    assert len(outcomes) == 1


def test_improving_changes_no_input(bench: Bench) -> None:
    learner, updates = bench.learner("fedpg-br"), gradients(bench.policy)
    state = learner.initial_state()
    before = bits(state), {agent: gradient.tobytes() for agent, gradient in updates.items()}
    learner.improve(state, ROUND, updates)
    assert (bits(state), {agent: gradient.tobytes() for agent, gradient in updates.items()}) == before
