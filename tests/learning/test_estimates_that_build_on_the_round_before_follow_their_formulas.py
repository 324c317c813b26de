"""Res-NHARPG and ByzPG are what plain code says they are: what agents submit, what the server makes of it, and the same
bits from whoever was started again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from fedpg_client.attacks import Attacker, build_attacker
from fedpg_client.worker import Worker
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import agent_seed
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.environments.rollouts import sample
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.gradient import advantages, estimate
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import GaussianPolicy, Policy, make_policy
from fedpg_common.learning.recursion import Kind, Recursion, hessian_product
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.algorithms.adam import adam_step, fresh
from fedpg_server.learning.learner import Learner
from fedpg_server.learning.state import State, digest_of
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

SEED, AGENTS, ROUND, BATCH = 7, 5, 3, 5
TASK = dataclasses.replace(CARTPOLE, hidden=(8,), horizon=40, evaluation_horizon=9, activation="tanh")
Numbers = NDArray[np.float64]


@dataclasses.dataclass
class Bench:
    environments: EnvironmentBatch
    policy: Policy

    def learner(self, algorithm: str, aggregator: str = "mean", **settings: Any) -> Learner:
        federation = Federation(TASK, AGENTS, Choice(algorithm, settings), Choice(aggregator), seed=SEED)
        return Learner(federation, self.environments, self.policy)

    def worker(self, agent: int, attacker: Attacker | None = None) -> Worker:
        seed = agent_seed(SEED, agent)
        return Worker(agent, AGENTS, seed, TASK, self.policy, self.environments, attacker or Attacker())

    def theta(self, seed: int = 0, near: Vector | None = None) -> Vector:
        """Parameters, or others at the distance of a step."""
        rng = np.random.default_rng(seed)
        if near is None:
            return self.policy.initial_parameters(rng)
        return (near + 0.01 * rng.standard_normal(near.size)).astype(np.float32)

    def batch(self, theta: Vector, agent: int, count: int, step: int) -> Trajectories:
        """What an agent samples in the round, by hand."""
        streams = {
            purpose: stream(agent_seed(SEED, agent), Role.AGENT, purpose, agent=agent, round_number=ROUND, step=step)
            for purpose in (Purpose.ENVIRONMENT, Purpose.ACTION)
        }
        actor, seeds = self.policy.actor(theta), episode_seeds(streams[Purpose.ENVIRONMENT], count)
        return sample(self.environments, lambda seen: actor.sample(seen, streams[Purpose.ACTION]), TASK.horizon, seeds)


@pytest.fixture
def bench(environments: EnvironmentBatch, policy: Policy) -> Bench:
    return Bench(environments, policy)


# The Hessian's product ------------------------------------------------------------------------------------------------


def exact_product(
    policy: Policy, theta: Vector, direction: Vector, batch: Trajectories, A: NDArray[np.float32]
) -> Numbers:
    """Σ_i ⟨∇ log p(τ_i), u⟩ ∇Φ_i + ∇²Φ_i u, differentiated twice by torch, trajectory by trajectory, in float64."""
    u = torch.tensor(direction, dtype=torch.float64)
    actions = torch.tensor(batch.actions)
    actions = actions.double() if isinstance(policy, GaussianPolicy) else actions
    result = torch.zeros_like(u)
    for episode in range(batch.count):
        variable = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        rows = torch.tensor(batch.episodes == episode)
        observations = torch.tensor(batch.observations, dtype=torch.float64)[rows]
        log_probs = policy.log_prob(variable, observations, actions[rows])
        phi = -(torch.tensor(A, dtype=torch.float64)[rows] * log_probs).sum() / batch.steps
        (score,) = torch.autograd.grad(log_probs.sum(), variable, retain_graph=True)
        (slope,) = torch.autograd.grad(phi, variable, create_graph=True)
        (curvature,) = torch.autograd.grad(slope @ u, variable)
        result += (score @ u) * slope.detach() + curvature
    numbers: Numbers = result.numpy()
    return numbers


@pytest.mark.parametrize("length", [1e-4, 0.02, 3.0])
@pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2,), np.float32)], ids=["discrete", "continuous"])
def test_the_product_is_that_of_the_exact_derivatives(space: Any, length: float) -> None:
    policy = make_policy(TASK, 3, space)
    rng = np.random.default_rng(4)
    theta = policy.initial_parameters(rng)
    episodes = np.tile(np.arange(4), 15)
    observations = rng.standard_normal((60, 3), np.float32)
    actions = policy.actor(theta).sample(observations, rng)
    batch = Trajectories(observations, actions, rng.standard_normal(60), episodes, 4)
    A = advantages(batch, TASK.gamma)
    drawn = rng.standard_normal(theta.size)
    direction = (drawn * length / np.linalg.norm(drawn)).astype(np.float32)
    expected = exact_product(policy, theta, direction, batch, A)
    found = hessian_product(policy, theta, direction, batch, A)
    assert np.linalg.norm(found - expected) < 2e-3 * np.linalg.norm(expected)


def test_without_a_step_the_product_is_zero(bench: Bench) -> None:
    theta = bench.theta()
    batch = bench.batch(theta, 1, 2, 0)
    product = hessian_product(bench.policy, theta, np.zeros_like(theta), batch, advantages(batch, TASK.gamma))
    assert not product.any()


def test_on_average_the_product_is_the_change_of_the_expected_gradient() -> None:
    """Of one decision between two actions followed by one step: expectations are sums over four trajectories."""
    policy = make_policy(dataclasses.replace(TASK, hidden=()), 1, Discrete(2))
    rng = np.random.default_rng(1)
    theta, u = (rng.standard_normal(policy.spec.size).astype(np.float32) for _ in range(2))
    u = (u / np.linalg.norm(u)).astype(np.float32)

    def expectation(at: Vector, direction: Vector | None) -> Numbers:
        """E[∇L], or the expectation of its product, over trajectories of π_at, each a batch of its own."""
        total = np.zeros(policy.spec.size)
        for first in (0, 1):
            for second in (0, 1):
                seen, actions = np.array([[1.0], [-0.5]], np.float32), np.array([first, second])
                rewards = np.array([float(first == 1), 3.0 * (first == second)])
                batch = Trajectories(seen, actions, rewards, np.zeros(2, np.int64), 1)
                A = advantages(batch, 0.9)
                plain = estimate(policy, at, batch, A)
                likelihood = math.exp(plain.log_probs.astype(np.float64).sum())
                value = plain.gradient if direction is None else hessian_product(policy, at, direction, batch, A)
                total += likelihood * value
        return total

    h = 0.02
    ahead, behind = ((theta + sign * h * u).astype(np.float32) for sign in (1, -1))
    change = (expectation(ahead, None) - expectation(behind, None)) / (2 * h)
    assert np.linalg.norm(change) > 0.05
    np.testing.assert_allclose(expectation(theta, u), change, atol=1e-3 * float(np.linalg.norm(change)))


# What agents submit ---------------------------------------------------------------------------------------------------


def test_with_momentum_an_agent_submits_what_the_round_adds_to_it(bench: Bench) -> None:
    previous, eta = bench.theta(), 0.3
    theta = bench.theta(1, near=previous)
    update = bench.worker(2).work(ROUND, BATCH, theta, Recursion(Kind.MOMENTUM, previous, weight=eta))
    q = stream(agent_seed(SEED, 2), Role.AGENT, Purpose.INTERPOLATION, agent=2, round_number=ROUND).random()
    between = (previous.astype(np.float64) + q * (theta.astype(np.float64) - previous)).astype(np.float32)
    there, here = bench.batch(between, 2, 2, step=1), bench.batch(theta, 2, 3, step=0)
    g = estimate(bench.policy, theta, here, advantages(here, TASK.gamma)).gradient
    v = exact_product(bench.policy, between, theta - previous, there, advantages(there, TASK.gamma))
    assert np.linalg.norm(v) > 0.01 * np.linalg.norm(g)
    np.testing.assert_allclose(
        update.gradient, eta * g + (1 - eta) * v, atol=3e-3 * (1 - eta) * float(np.linalg.norm(v))
    )
    assert (update.trajectories, update.environment_steps) == (BATCH, here.steps + there.steps)
    returns = np.concatenate([there.returns(), here.returns()])
    assert update.mean_return == pytest.approx(returns.mean())


def test_with_the_last_estimate_an_agent_submits_it_and_a_difference(bench: Bench) -> None:
    previous = bench.theta()
    theta = bench.theta(1, near=previous)
    last = np.linspace(-1, 1, theta.size).astype(np.float32)
    update = bench.worker(4).work(ROUND, BATCH, theta, Recursion(Kind.DIFFERENCE, previous, last))
    batch = bench.batch(theta, 4, BATCH, step=0)
    A = torch.tensor(advantages(batch, TASK.gamma), dtype=torch.float64)
    seen, actions = torch.tensor(batch.observations, dtype=torch.float64), torch.tensor(batch.actions)

    def slope(at: Vector, weights: torch.Tensor) -> Numbers:
        variable = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(-(weights * A * bench.policy.log_prob(variable, seen, actions)).mean(), variable)
        numbers: Numbers = found.numpy()
        return numbers

    then, now = (
        bench.policy.log_prob(torch.tensor(at, dtype=torch.float64), seen, actions) for at in (previous, theta)
    )
    omega = torch.exp(then - now)
    assert float(omega.std()) > 1e-4
    expected = last + slope(theta, torch.ones_like(A)) - slope(previous, omega)
    np.testing.assert_allclose(update.gradient, expected, atol=2e-6)
    assert update.trajectories == BATCH


def test_without_a_recursion_it_submits_the_plain_gradient(bench: Bench) -> None:
    theta = bench.theta()
    batch = bench.batch(theta, 1, BATCH, step=0)
    expected = estimate(bench.policy, theta, batch, advantages(batch, TASK.gamma)).gradient
    assert bench.worker(1).work(ROUND, BATCH, theta).gradient.tobytes() == expected.tobytes()


@pytest.mark.filterwarnings("error")
def test_what_float32_cannot_hold_is_left_out(bench: Bench) -> None:
    theta = bench.theta()
    plain = bench.worker(1).work(ROUND, BATCH, theta).gradient
    huge = np.full_like(theta, np.finfo(np.float32).max)
    again = bench.worker(1).work(ROUND, BATCH, theta, Recursion(Kind.DIFFERENCE, huge, huge)).gradient
    assert again.tobytes() == plain.tobytes()
    far = Recursion(Kind.MOMENTUM, -huge, weight=0.5)
    with np.errstate(all="ignore"):
        submitted = bench.worker(1).work(ROUND, BATCH, theta, far).gradient
    assert np.isfinite(submitted).all()


def recursions(bench: Bench) -> list[Recursion]:
    previous = bench.theta()
    return [
        Recursion(Kind.MOMENTUM, previous, weight=0.25),
        Recursion(Kind.DIFFERENCE, previous, np.full_like(previous, 0.1)),
    ]


def test_attacks_tamper_with_what_is_submitted(bench: Bench) -> None:
    theta = bench.theta(1, near=bench.theta())
    for recursion in recursions(bench):
        honest = bench.worker(3).work(ROUND, BATCH, theta, recursion).gradient.astype(np.float64)
        for name, factor in (("sign-flipping", -2.5), ("zero-gradient", 0.0)):
            attacker = build_attacker(Choice(name))
            sent = bench.worker(3, attacker).work(ROUND, BATCH, theta, recursion).gradient
            np.testing.assert_allclose(sent, factor * honest, rtol=1e-6)
        for name in ("random-action", "reward-flipping", "random-noise", "boundary-split"):
            sent = bench.worker(3, build_attacker(Choice(name))).work(ROUND, BATCH, theta, recursion).gradient
            assert np.linalg.norm(sent - honest) > 1e-3 * np.linalg.norm(honest), name
            assert np.isfinite(sent).all()


def test_flipped_rewards_flip_both_estimates(bench: Bench) -> None:
    previous = bench.theta()
    theta, recursion = bench.theta(1, near=previous), Recursion(Kind.MOMENTUM, previous, weight=0.25)
    honest = bench.worker(3).work(ROUND, BATCH, theta, recursion).gradient
    flipped = bench.worker(3, build_attacker(Choice("reward-flipping"))).work(ROUND, BATCH, theta, recursion).gradient
    np.testing.assert_allclose(flipped, -honest, rtol=1e-5, atol=1e-8)


def test_omniscient_attackers_recompute_what_the_others_submit_bit_for_bit(bench: Bench) -> None:
    theta = bench.theta(1, near=bench.theta())
    for recursion in recursions(bench):
        mimic = dataclasses.replace(build_attacker(Choice("mimic")), attackers=(1,), run_seed=SEED)
        sent = bench.worker(1, mimic).work(ROUND, BATCH, theta, recursion).gradient
        others = {
            agent: bench.worker(agent).work(ROUND, BATCH, theta, recursion).gradient.tobytes()
            for agent in range(2, AGENTS + 1)
        }
        assert sent.tobytes() in others.values()
        assert len(set(others.values())) == AGENTS - 1


# Res-NHARPG on the server ---------------------------------------------------------------------------------------------


def play(learner: Learner, bench: Bench, rounds: range, state: State, absent: Mapping[int, int]) -> State:
    """Rounds of honest agents; `absent` names one that does not vote, by round."""
    for number in rounds:
        plan = learner.plan(number)
        recursion = learner.recursion(state, plan)
        updates = {
            agent: bench.worker(agent).work(number, plan.batch_size, state.theta, recursion).gradient
            for agent in range(1, AGENTS + 1)
            if absent.get(number) != agent
        }
        state = learner.improve(state, plan, updates).state
    return state


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


# ByzPG on the server --------------------------------------------------------------------------------------------------


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


# Both -----------------------------------------------------------------------------------------------------------------


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
