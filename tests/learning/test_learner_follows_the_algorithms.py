"""A round of FedPG-BR, SVRPG and GPOMDP is what plain code says it is, and the same each time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from fedpg_common.choices import Choice
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.environments.rollouts import sample
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import ParameterSpec, Vector
from fedpg_common.learning.policies import Policy
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, LUNAR_LANDER, Task
from fedpg_server.learning.algorithms.adam import adam_step, fresh
from fedpg_server.learning.algorithms.base import Tools
from fedpg_server.learning.algorithms.inner_loop import variance_reduced_steps
from fedpg_server.learning.learner import Learner, RoundResult
from fedpg_server.learning.make_record import verdicts_of
from fedpg_server.learning.records import Evaluation
from fedpg_server.learning.state import ADAM_M, ADAM_V, THETA, State
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float32).max)
SEED = 7
TASK = dataclasses.replace(
    CARTPOLE, hidden=(8,), horizon=30, evaluation_horizon=9, batch_size=10, batch_size_min=8, batch_size_max=12
)
ROUND = RoundPlan(round_number=3, batch_size=10, inner_steps=3)


@dataclasses.dataclass
class Bench:
    """Makes learners."""

    environments: EnvironmentBatch
    policy: Policy

    def learner(self, algorithm: str, agents: int = 5, learning_rate: float = TASK.learning_rate) -> Learner:
        """A learner of the small task."""
        task = dataclasses.replace(TASK, learning_rate=learning_rate)
        return Learner(Federation(task, agents, Choice(algorithm), seed=SEED), self.environments, self.policy)


@pytest.fixture
def bench(environments: EnvironmentBatch, policy: Policy) -> Bench:
    """A bench."""
    return Bench(environments, policy)


def gradients(policy: Policy, agents: int = 5) -> dict[int, Vector]:
    """Gradients about a common one, as honest agents send."""
    rng = np.random.default_rng(1)
    common = 0.02 * rng.standard_normal(policy.spec.size)
    return {
        agent: (common + 0.002 * rng.standard_normal(policy.spec.size)).astype(np.float32)
        for agent in range(1, agents + 1)
    }


def mean(updates: Mapping[int, Vector]) -> NDArray[np.float64]:
    """The plain mean."""
    result: NDArray[np.float64] = np.stack(list(updates.values())).astype(np.float64).mean(axis=0)
    return result


def bits(state: State) -> tuple[bytes, bytes, bytes, int]:
    """The state's exact value."""
    return state.theta.tobytes(), state.vectors[ADAM_M].tobytes(), state.vectors[ADAM_V].tobytes(), state.steps


# Plain code -----------------------------------------------------------------------------------------------------------


def plain_log_probs(theta: torch.Tensor, spec: ParameterSpec, batch: Trajectories) -> torch.Tensor:
    """Log π_θ(a|s) of each step: a ReLU network, logits through tanh."""
    x = torch.from_numpy(batch.observations).double()
    for number, (tensor, place) in enumerate(spec.slices()):
        if number % 2 == 0:
            x = torch.relu(x) if number else x
            x = x @ theta[place].view(tensor.shape).T
        else:
            x = x + theta[place]
    logits = torch.tanh(x)
    taken = logits[torch.arange(batch.steps), torch.from_numpy(batch.actions)]
    return taken - torch.exp(logits).sum(dim=1).log()


def plain_advantages(batch: Trajectories, gamma: float) -> NDArray[np.float64]:
    """Whitened reward-to-go, one trajectory after the other."""
    A = np.zeros(batch.steps)
    for episode in range(batch.count):
        steps = np.flatnonzero(batch.episodes == episode)
        R = [
            sum(gamma ** (later - t) * batch.rewards[steps[later]] for later in range(t, len(steps)))
            for t in range(len(steps))
        ]
        if len(R) > 1 and np.std(R) > 0:
            A[steps] = (R - np.mean(R)) / np.std(R, ddof=1)
    return A


def plain_gradient(
    theta: NDArray[np.float64], spec: ParameterSpec, batch: Trajectories, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The gradient at θ of −(1/n) Σ ω A log π_θ."""
    variable = torch.tensor(theta, requires_grad=True)
    terms = torch.from_numpy(weights * plain_advantages(batch, TASK.gamma)) * plain_log_probs(variable, spec, batch)
    (gradient,) = torch.autograd.grad(-terms.sum() / batch.steps, variable)
    result: NDArray[np.float64] = gradient.numpy()
    return result


@dataclasses.dataclass
class PlainAdam:
    """Adam as Kingma and Ba wrote it down."""

    theta: NDArray[np.float64]
    m: NDArray[np.float64]
    v: NDArray[np.float64]
    t: int = 0

    @classmethod
    def at(cls, state: State) -> PlainAdam:
        """Adam at a learner's state."""
        theta, m, v = (state.vectors[name].astype(np.float64) for name in (THETA, ADAM_M, ADAM_V))
        return cls(theta, m, v, state.steps)

    def step(self, gradient: NDArray[np.float64], learning_rate: float) -> None:
        """One step of Algorithm 1."""
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        m_hat, v_hat = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        self.theta = self.theta - learning_rate * m_hat / (np.sqrt(v_hat) + 1e-8)


def plain_inner_loop(
    bench: Bench, state: State, mu: NDArray[np.float64] | None, learning_rate: float
) -> tuple[PlainAdam, list[float]]:
    """The loop of docs/algorithm.md, "Inner loop", and its mean importance ratios."""
    adam = PlainAdam.at(state)
    theta_0, spec = adam.theta, bench.policy.spec
    ratios = []
    for n in (1, 2, 3):
        batch = plain_batch(bench, adam.theta, n)
        v = plain_gradient(adam.theta, spec, batch, np.ones(batch.steps))
        if mu is not None:
            log_0 = plain_log_probs(torch.tensor(theta_0), spec, batch).numpy()
            weights = np.exp(log_0 - plain_log_probs(torch.tensor(adam.theta), spec, batch).numpy())
            ratios.append(float(weights.mean()))
            if abs(weights.mean() - 1) > 0.005:
                break
            v = v - plain_gradient(theta_0, spec, batch, weights) + mu
        adam.step(v, learning_rate)
    return adam, ratios


def plain_batch(bench: Bench, theta: NDArray[np.float64], n: int) -> Trajectories:
    """The b trajectories of inner step n."""
    streams = [
        stream(SEED, Role.SERVER, purpose, round_number=ROUND.round_number, step=n)
        for purpose in (Purpose.ENVIRONMENT, Purpose.ACTION)
    ]
    actor = bench.policy.actor(theta.astype(np.float32))
    seeds = episode_seeds(streams[0], TASK.mini_batch_size)
    return sample(bench.environments, lambda seen: actor.sample(seen, streams[1]), TASK.horizon, seeds)


def assert_close(state: State, adam: PlainAdam, learning_rate: float = TASK.learning_rate) -> None:
    """Equal up to float32."""
    assert state.steps == adam.t
    np.testing.assert_allclose(state.theta, adam.theta, rtol=1e-5, atol=1e-3 * learning_rate)
    np.testing.assert_allclose(state.vectors[ADAM_M], adam.m, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(state.vectors[ADAM_V], adam.v, rtol=1e-3, atol=1e-10)


# A round --------------------------------------------------------------------------------------------------------------


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


# Hostile numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("huge", [LARGEST, -LARGEST, 1e25])
@pytest.mark.parametrize("algorithm", ["fedpg-br", "svrpg", "gpomdp"])
def test_a_step_beyond_float32_is_not_taken(bench: Bench, algorithm: str, huge: float) -> None:
    learner, updates = bench.learner(algorithm), gradients(bench.policy)
    updates[1] = np.full(bench.policy.spec.size, huge, dtype=np.float32)
    state = learner.initial_state()
    result = learner.improve(state, ROUND, updates)
    assert all(
        np.isfinite(part).all()
        for part in (result.state.theta, result.state.vectors[ADAM_M], result.state.vectors[ADAM_V])
    )
    assert math.isfinite(result.gradient_norm)
    if algorithm == "fedpg-br":
        assert (result.inner.steps_taken, result.inner.skipped_steps) == (3, 0)
    else:
        assert result.inner.skipped_steps == (1 if algorithm == "gpomdp" else 3)
        assert result.inner.steps_taken == 0
        assert bits(result.state) == bits(state)


def test_after_a_skipped_step_learning_goes_on(bench: Bench) -> None:
    learner, updates = bench.learner("svrpg"), gradients(bench.policy)
    flooded = learner.improve(learner.initial_state(), ROUND, updates | {1: np.full_like(updates[1], LARGEST)})
    after = learner.improve(flooded.state, ROUND, updates)
    assert bits(after.state) == bits(learner.improve(learner.initial_state(), ROUND, updates).state)


# The same each time ---------------------------------------------------------------------------------------------------


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


# The plan -------------------------------------------------------------------------------------------------------------


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
