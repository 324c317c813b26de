"""A round of FedPG-BR, SVRPG and GPOMDP is what plain code says it is."""

from __future__ import annotations

import numpy as np
import pytest
from fedpg_common.environments.rollouts import sample
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, LUNAR_LANDER, Task
from fedpg_server.learning.algorithms.adam import adam_step, fresh
from fedpg_server.learning.algorithms.base import Tools
from fedpg_server.learning.algorithms.inner_loop import variance_reduced_steps
from fedpg_server.learning.learner import Learner
from fedpg_server.learning.make_record import verdicts_of
from fedpg_server.learning.records import Evaluation
from support.plain_learning import (
    ROUND,
    SEED,
    SMALL_TASK,
    Bench,
    PlainAdam,
    assert_close,
    bits,
    gradients,
    mean,
    plain_batch,
    plain_inner_loop,
)

TASK = SMALL_TASK


@pytest.mark.parametrize("algorithm", ["fedpg-br", "svrpg"])
def test_variance_reduced_steps_are_those_of_plain_code(bench: Bench, algorithm: str) -> None:
    learner, updates = bench.learner(algorithm), gradients(bench.policy)
    state = learner.initial_state()
    mu = mean(updates)
    adam, ratios = plain_inner_loop(bench, state, mu, TASK.learning_rate)
    result = learner.improve(state, ROUND, updates)
    assert len(verdicts_of(result.aggregate, result.votes.agents)[0]) == 5
    assert_close(result.state, adam)
    assert result.inner.importance_ratios == pytest.approx(ratios, rel=1e-6)
    assert (result.inner.steps_taken, result.inner.aborted, result.inner.skipped_steps) == (3, False, 0)
    assert result.gradient_norm == pytest.approx(float(np.linalg.norm(mu)))
    assert result.inner.gradient_norms[0] == pytest.approx(result.gradient_norm)  # at θ_0 the corrections cancel


def test_fedpg_br_filters_and_svrpg_averages(bench: Bench) -> None:
    updates = gradients(bench.policy)
    updates[2] = -50 * updates[2]
    kept = [updates[agent] for agent in (1, 3, 4, 5)]
    for algorithm, rule, vectors in (
        ("fedpg-br", "R1", kept),
        ("svrpg", "mean", [*updates.values()]),
        ("gpomdp", "mean", [*updates.values()]),
    ):
        learner = bench.learner(algorithm)
        result = learner.improve(learner.initial_state(), ROUND, updates)
        assert result.aggregate.rule == rule
        assert result.aggregate.vector is not None
        np.testing.assert_allclose(result.aggregate.vector, np.mean(vectors, axis=0), rtol=1e-4, atol=1e-8)


def test_gpomdp_takes_one_step_on_the_mean(bench: Bench) -> None:
    learner, updates = bench.learner("gpomdp"), gradients(bench.policy)
    state = learner.initial_state()
    adam = PlainAdam.at(state)
    adam.step(mean(updates), TASK.learning_rate)
    result = learner.improve(state, learner.plan(1), updates)
    assert_close(result.state, adam)
    assert (result.inner.sampled.trajectories, result.inner.importance_ratios) == (0, [])


@pytest.mark.parametrize("algorithm", ["fedpg-br", "svrpg"])
def test_without_a_gradient_the_inner_loop_takes_plain_steps(bench: Bench, algorithm: str) -> None:
    learner = bench.learner(algorithm)
    state = learner.initial_state()
    adam, _ = plain_inner_loop(bench, state, None, TASK.learning_rate)
    scattered = {agent: np.full(bench.policy.spec.size, 10.0 * agent, dtype=np.float32) for agent in range(1, 6)}
    for updates in (scattered, {}) if algorithm == "fedpg-br" else ({},):
        result = learner.improve(state, ROUND, updates)
        assert (result.aggregate.vector, result.aggregate.rule, result.gradient_norm) == (None, "none", 0.0)
        assert_close(result.state, adam)
        assert (result.inner.steps_taken, result.inner.importance_ratios) == (3, [])


def test_without_a_gradient_gpomdp_stays_where_it_is(bench: Bench) -> None:
    learner = bench.learner("gpomdp")
    state = learner.initial_state()
    result = learner.improve(state, learner.plan(1), {})
    assert bits(result.state) == bits(state)
    assert (result.inner.steps_taken, result.inner.skipped_steps) == (0, 0)
    assert len(learner.evaluate(result.state.theta, 1).returns) == 10


@pytest.mark.parametrize(("learning_rate", "direction"), [(0.3, 1), (1.0, -1)])
def test_the_inner_loop_stops_when_the_policy_has_moved_too_far(
    bench: Bench, learning_rate: float, direction: int
) -> None:
    # One step of that size in every parameter takes the importance ratio out of its range: above it, and below it.
    learner, updates = bench.learner("svrpg", learning_rate=learning_rate), gradients(bench.policy)
    state = learner.initial_state()
    mu = mean(updates)
    adam, ratios = plain_inner_loop(bench, state, mu, learning_rate)
    result = learner.improve(state, ROUND, updates)
    assert (result.inner.steps_taken, result.inner.aborted) == (1, True)
    assert result.inner.importance_ratios == pytest.approx(ratios, rel=1e-4)
    assert direction * (result.inner.importance_ratios[-1] - 1) > 0.005
    assert_close(result.state, adam, learning_rate)
    assert result.inner.sampled.trajectories == result.inner.dropped.trajectories == TASK.mini_batch_size
    dropped = plain_batch(bench, adam.theta, 2)
    assert result.inner.dropped.steps == dropped.steps
    assert (len(result.inner.losses), len(result.inner.gradient_norms)) == (2, 1)


@pytest.mark.parametrize("with_mu", [True, False])
def test_who_watches_the_inner_loop_sees_every_batch(bench: Bench, with_mu: bool) -> None:
    """The first one, too, at which both gradients are the same and one of them is not computed."""
    tools = Tools(TASK, 5, bench.policy, SEED, bench.environments)
    state = fresh(bench.policy.initial_parameters(np.random.default_rng(3)))
    mu = gradients(bench.policy)[1] if with_mu else None
    seen: list[tuple[Trajectories, Vector]] = []
    plan = RoundPlan(4, 10, 3)
    _, report = variance_reduced_steps(tools, state, plan, mu, watch=lambda *what: seen.append(what))
    assert len(seen) == len(report.losses) >= 2
    for step, (batch, gradient) in enumerate(seen, start=1):
        assert batch.count == TASK.mini_batch_size
        if step == 1:
            A = tools.advantages(batch)
            log_probs = tools.estimate(state.theta, batch, A).log_probs
            assert gradient.tobytes() == tools.estimate(state.theta, batch, A, log_probs).gradient.tobytes()


def test_evaluation_is_ten_greedy_episodes(bench: Bench) -> None:
    learner = bench.learner("svrpg")
    result = learner.improve(learner.initial_state(), ROUND, gradients(bench.policy))
    seeds = episode_seeds(stream(SEED, Role.SERVER, Purpose.EVALUATION, round_number=ROUND.round_number), 10)
    greedy = bench.policy.actor(result.state.theta).greedy
    expected = sample(bench.environments, greedy, TASK.evaluation_horizon, seeds)
    assert result.evaluation is None, "nothing waits for it"
    evaluation = learner.evaluate(result.state.theta, ROUND.round_number)
    assert evaluation == Evaluation(tuple(expected.returns()), tuple(expected.lengths()))
    assert result.learning_rate == TASK.learning_rate


@pytest.mark.parametrize(
    ("algorithm", "agents", "plan", "whole", "stopped"),
    [
        ("fedpg-br", 10, RoundPlan(1, 16, 3), 16, 15),  # (160 + 12) / 11 = 15.6, (160 + 4) / 11 = 14.9
        ("fedpg-br", 10, RoundPlan(1, 12, 9), 14, 11),  # (120 + 36) / 11 = 14.2, (120 + 4) / 11 = 11.3
        ("svrpg", 3, RoundPlan(1, 16, 3), 15, 13),  # (48 + 12) / 4, (48 + 4) / 4
        ("svrpg", 1, RoundPlan(1, 16, 3), 28, 20),
        ("gpomdp", 10, RoundPlan(1, 16, 0), 15, 15),  # 160 / 11 = 14.5
        ("gpomdp", 1, RoundPlan(1, 16, 0), 16, 16),
    ],
)
def test_trajectories_are_counted_as_in_the_published_figures(
    bench: Bench, algorithm: str, agents: int, plan: RoundPlan, whole: int, stopped: int
) -> None:
    # With small steps every planned inner batch counts; with large ones the second is dropped, and only the first does.
    present = {agent: gradient for agent, gradient in gradients(bench.policy, agents).items() if agent != 2}
    for learning_rate, count in ((1e-6, whole), (1.0, stopped)):
        learner = bench.learner(algorithm, agents, learning_rate=learning_rate)
        result = learner.improve(learner.initial_state(), plan, present)
        assert result.trajectories == count
        assert result.inner.aborted == (learning_rate == 1.0 and plan.inner_steps > 0)


def test_adam_is_adam(policy: Policy) -> None:
    rng = np.random.default_rng(2)
    theta = rng.standard_normal(40).astype(np.float32)
    state = fresh(theta)
    adam = PlainAdam(theta.astype(np.float64), np.zeros(40), np.zeros(40))
    for _ in range(20):
        gradient = (rng.standard_normal(40) * 10.0 ** rng.integers(-6, 6, 40)).astype(np.float32)
        stepped = adam_step(state, gradient, learning_rate=0.01)
        assert stepped is not None
        state = stepped
        adam.step(gradient.astype(np.float64), learning_rate=0.01)
    np.testing.assert_allclose(state.theta, adam.theta, rtol=1e-5, atol=1e-6)
    assert state.steps == 20


def test_svrpg_and_gpomdp_have_fixed_plans(bench: Bench) -> None:
    assert bench.learner("svrpg").plan(5) == RoundPlan(5, TASK.batch_size, TASK.inner_steps)
    assert bench.learner("gpomdp").plan(5) == RoundPlan(5, TASK.batch_size, 0)


@pytest.mark.parametrize("task", [CARTPOLE, LUNAR_LANDER, HALF_CHEETAH], ids=lambda task: task.name)
def test_fedpg_br_draws_its_plan_from_the_published_distributions(bench: Bench, task: Task) -> None:
    learner = Learner(Federation(task), bench.environments, bench.policy)
    plans = [learner.plan(round_number) for round_number in range(1, 3001)]
    assert plans == [learner.plan(plan.round_number) for plan in plans]
    B_t = np.array([plan.batch_size for plan in plans])
    sizes, counts = np.unique(B_t, return_counts=True)
    assert sizes.tolist() == list(range(task.batch_size_min, task.batch_size_max + 1))
    np.testing.assert_allclose(counts, 3000 / len(sizes), rtol=0.35)
    N_t = np.array([plan.inner_steps for plan in plans])
    assert N_t.min() == 1
    # A geometric variable on {1, 2, …} has mean 1/p and exceeds n with probability (1 − p)^n.
    p = task.mini_batch_size / (B_t + task.mini_batch_size)
    assert float((N_t * p).mean()) == pytest.approx(1, abs=0.06)
    for n in (1, 2, 5, 10):
        assert float((N_t > n).mean()) == pytest.approx(float(((1 - p) ** n).mean()), abs=0.03)
