"""Res-NHARPG and ByzPG make of votes what plain code says, with the same bits from whoever was started again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.recursion import Kind
from fedpg_server.learning.algorithms.adam import adam_step, fresh
from fedpg_server.learning.state import State, digest_of
from support.recursions import AGENTS, TASK, Bench, Numbers, play


@pytest.mark.parametrize(
    ("settings", "etas"), [({"eta": 0.25}, [0.25] * 4), ({"decaying": True}, [1 / 2, 2 / 5, 1 / 3])]
)
def test_the_server_keeps_the_momentum_that_agents_would_keep(
    bench: Bench, settings: dict[str, Any], etas: list[float]
) -> None:
    """As each of them would: d ← (1 − η)(d + v) + η g, of what it submits."""
    learner = bench.learner("res-nharpg", "median", **settings)
    rng = np.random.default_rng(2)
    state = learner.initial_state()
    assert learner.recursion(state, learner.plan(1)) is None
    held: dict[int, Numbers] = {}
    adam = fresh(state.theta)
    voters = [(1, 2, 3, 4, 5), (1, 2, 3, 5), (1, 2, 3, 4, 5)]
    for number, voting in zip((1, 2, 3), voters, strict=True):
        plan = learner.plan(number)
        recursion = learner.recursion(state, plan)
        if number > 1:
            assert recursion is not None
            assert (recursion.kind, recursion.estimate) == (Kind.MOMENTUM, None)
            assert recursion.weight == pytest.approx(etas[number - 2] if "eta" not in settings else 0.25)
        sent = {agent: rng.standard_normal(state.theta.size).astype(np.float32) for agent in voting}
        middle = np.median(np.stack(list(held.values())), axis=0) if held else np.zeros(state.theta.size)
        weight = 0.0 if recursion is None else recursion.weight
        kept = 0.0 if recursion is None else 1.0 - weight
        held = {agent: kept * held.get(agent, middle) + sent[agent] for agent in voting}
        result = learner.improve(state, plan, sent)
        np.testing.assert_allclose(
            result.votes.matrix, np.stack([held[agent] for agent in voting]), rtol=1e-5, atol=1e-6
        )
        mu = np.median(np.stack(list(held.values())), axis=0)
        stepped = adam_step(adam, (mu / np.linalg.norm(mu)).astype(np.float32), TASK.learning_rate)
        assert stepped is not None
        adam = stepped
        np.testing.assert_allclose(result.state.theta, adam.theta, rtol=1e-5, atol=1e-6)
        memory = result.state.memory("algorithm")
        assert sorted(memory) == sorted(["previous", *(f"momentum/{agent}" for agent in voting)])
        assert memory["previous"].tobytes() == state.theta.tobytes()
        held = {agent: memory[f"momentum/{agent}"].astype(np.float64) for agent in voting}
        state = result.state


def test_a_step_has_the_length_that_is_set(bench: Bench) -> None:
    learner = bench.learner("res-nharpg", step=0.05)
    state = learner.initial_state()
    updates = {agent: np.full(state.theta.size, float(agent), np.float32) for agent in range(1, AGENTS + 1)}
    result = learner.improve(state, learner.plan(1), updates)
    moved = state.theta.astype(np.float64) - result.state.theta
    np.testing.assert_allclose(moved, 0.05 / math.sqrt(moved.size), rtol=1e-3)
    assert (result.inner.steps_taken, result.learning_rate) == (1, 0.05)


def test_without_votes_nothing_changes_and_without_mu_only_the_momenta_do(bench: Bench) -> None:
    learner = bench.learner("res-nharpg", "fedpg", eta=0.5)
    state = play(learner, bench, range(1, 3), learner.initial_state(), {})
    idle = learner.improve(state, learner.plan(3), {})
    assert digest_of(idle.state) == digest_of(state)
    scattered = {agent: np.full(state.theta.size, 10.0 * agent, np.float32) for agent in range(1, AGENTS + 1)}
    refused = learner.improve(state, learner.plan(3), scattered)
    assert refused.aggregate.vector is None
    assert refused.state.theta.tobytes() == state.theta.tobytes()
    recursion = learner.recursion(refused.state, learner.plan(4))
    assert recursion is not None
    assert recursion.previous.tobytes() == state.theta.tobytes()


@pytest.mark.filterwarnings("error")
def test_huge_momenta_stay_finite(bench: Bench) -> None:
    learner = bench.learner("res-nharpg", "median", eta=0.1)
    state = learner.initial_state()
    largest = np.full(state.theta.size, np.finfo(np.float32).max, np.float32)
    for number in (1, 2, 3):
        updates = {agent: np.full(state.theta.size, 0.1 * agent, np.float32) for agent in range(1, AGENTS)}
        state = learner.improve(state, learner.plan(number), {**updates, AGENTS: largest}).state
    assert all(np.isfinite(vector).all() for vector in state.vectors.values())


def test_byzpg_draws_large_batches_with_its_probability(bench: Bench) -> None:
    learner = bench.learner("byzpg", probability=0.3)
    plans = [learner.plan(number) for number in range(1, 2001)]
    assert plans[0].batch_size == 3 * TASK.batch_size
    assert {plan.batch_size for plan in plans} == {3 * TASK.batch_size, TASK.mini_batch_size}
    share = np.mean([plan.batch_size == 3 * TASK.batch_size for plan in plans])
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)
    assert [learner.plan(plan.round_number) for plan in plans] == plans
    assert bench.learner("byzpg", large=9, small=2, probability=1).plan(5) == RoundPlan(5, 9, 0)


def test_byzpg_hands_out_its_last_estimate_and_steps_on_mu(bench: Bench) -> None:
    learner = bench.learner("byzpg", probability=1e-9)
    state = learner.initial_state()
    adam = fresh(state.theta)
    assert learner.recursion(state, learner.plan(1)) is None
    for number in (1, 2, 3):
        updates = {agent: np.full(state.theta.size, 0.1 * agent + number, np.float32) for agent in range(1, AGENTS + 1)}
        result = learner.improve(state, learner.plan(number), updates)
        mu = np.full(state.theta.size, 0.3 + number, np.float32)
        stepped = adam_step(adam, mu, TASK.learning_rate)
        assert stepped is not None
        adam = stepped
        np.testing.assert_allclose(result.state.theta, adam.theta, rtol=1e-5)
        recursion = learner.recursion(result.state, learner.plan(number + 1))
        assert recursion is not None
        assert recursion.kind is Kind.DIFFERENCE
        assert recursion.previous.tobytes() == state.theta.tobytes()
        assert recursion.estimate is not None
        np.testing.assert_allclose(recursion.estimate, mu, rtol=1e-6)
        state = result.state
    nothing = learner.improve(state, learner.plan(4), {})
    assert digest_of(nothing.state) == digest_of(state)
    flooded = {agent: np.full(state.theta.size, 1e30, np.float32) for agent in range(1, AGENTS + 1)}
    skipped = learner.improve(state, learner.plan(4), flooded)
    assert (skipped.inner.skipped_steps, digest_of(skipped.state)) == (1, digest_of(state))


def test_byzpg_needs_nothing_of_the_past_with_a_large_batch(bench: Bench) -> None:
    learner = bench.learner("byzpg", probability=0.5)
    state = learner.initial_state()
    state = learner.improve(state, learner.plan(1), {1: np.ones_like(state.theta)}).state
    for number in range(2, 30):
        plan = learner.plan(number)
        assert (learner.recursion(state, plan) is None) == (plan.batch_size == 3 * TASK.batch_size)


@pytest.mark.parametrize("algorithm", ["res-nharpg", "byzpg"])
def test_a_run_taken_up_from_stored_bytes_has_the_same_bits(bench: Bench, algorithm: str) -> None:
    absent = {2: 3, 4: 1}
    learner = bench.learner(algorithm)
    whole = play(learner, bench, range(1, 6), learner.initial_state(), absent)
    half = play(learner, bench, range(1, 4), learner.initial_state(), absent)
    stored = {name: np.frombuffer(vector.tobytes(), dtype="<f4") for name, vector in half.vectors.items()}
    rest = play(bench.learner(algorithm), bench, range(4, 6), State(stored, half.steps), absent)
    assert digest_of(rest) == digest_of(whole)


@pytest.mark.parametrize(
    ("algorithm", "settings", "sentence"),
    [
        ("res-nharpg", {"eta": 0}, "eta must be above 0 and at most 1, not 0"),
        ("res-nharpg", {"eta": 1.5}, "eta must be above 0 and at most 1, not 1.5"),
        ("res-nharpg", {"decaying": 1}, "decaying must be true or false, not 1"),
        ("res-nharpg", {"step": -1}, "step must be above 0 and at most 1000, not -1"),
        ("res-nharpg", {"batch": 1}, "batch must be a whole number from 2 to 10000, not 1"),
        ("byzpg", {"probability": 0}, "probability must be above 0 and at most 1, not 0"),
        ("byzpg", {"large": 0}, "large must be a whole number from 1 to 10000, not 0"),
        ("byzpg", {"small": 2.5}, "small must be a whole number from 1 to 10000, not 2.5"),
    ],
)
def test_a_wrong_setting_is_one_sentence(bench: Bench, algorithm: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        bench.learner(algorithm, **settings)
    assert str(caught.value) == f"algorithm {algorithm}: {sentence}"
