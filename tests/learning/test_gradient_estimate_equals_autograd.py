"""The estimate is −(1/n) Σ ω A ∇ log π, whoever differentiates it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from fedpg_common.learning import policies
from fedpg_common.learning.gradient import estimate
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import GaussianPolicy, Policy, make_policy
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import CARTPOLE
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

SPACES = [Discrete(2), Discrete(5), Box(-1, 1, (1,), np.float32), Box(-1, 1, (2, 3), np.float32)]
NETWORKS: list[tuple[tuple[int, ...], str]] = [((), "relu"), ((5,), "tanh"), ((8, 6), "relu"), ((7, 9), "tanh")]

everywhere = pytest.mark.parametrize(
    "policy",
    [
        make_policy(dataclasses.replace(CARTPOLE, hidden=hidden, activation=activation), 3, space)
        for space in SPACES
        for hidden, activation in NETWORKS
    ],
    ids=lambda policy: f"{policy.action_space}-{[tensor.shape for tensor in policy.spec.tensors]}",
)


def batch_of(policy: Policy, steps: int, seed: int) -> tuple[Vector, Trajectories, NDArray[np.float32]]:
    """Parameters, one long trajectory of random observations with the policy's own actions, and advantages."""
    rng = np.random.default_rng(seed)
    theta = 2.0 * policy.initial_parameters(rng)
    observations = rng.standard_normal((steps, 3), np.float32)
    trajectories = Trajectories(
        observations=observations,
        actions=policy.actor(theta).sample(observations, rng),
        rewards=np.zeros(steps),
        episodes=np.zeros(steps, np.int64),
        count=1,
    )
    return theta, trajectories, rng.standard_normal(steps, np.float32)


def log_prob(policy: Policy, theta: torch.Tensor, trajectories: Trajectories) -> torch.Tensor:
    """Torch's, in float64."""
    actions = torch.tensor(trajectories.actions)
    return policy.log_prob(
        theta,
        torch.tensor(trajectories.observations, dtype=torch.float64),
        actions.double() if isinstance(policy, GaussianPolicy) else actions,
    )


def autograd(
    policy: Policy, theta: Vector, trajectories: Trajectories, coefficients: NDArray[Any]
) -> tuple[float, NDArray[np.float64]]:
    """L = −mean(coefficients · log π) and ∇L."""
    parameters = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    loss = -(torch.tensor(coefficients, dtype=torch.float64) * log_prob(policy, parameters, trajectories)).mean()
    (slope,) = torch.autograd.grad(loss, parameters)
    return loss.item(), slope.numpy()


def assert_close(actual: NDArray[np.float32], expected: NDArray[np.float64]) -> None:
    """Up to the rounding of float32, beside the largest entry."""
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=2e-5 * np.abs(expected).max())


@everywhere
def test_without_a_reference(policy: Policy) -> None:
    """ω = 1."""
    theta, trajectories, advantages = batch_of(policy, steps=40, seed=1)
    loss, slope = autograd(policy, theta, trajectories, advantages)
    result = estimate(policy, theta, trajectories, advantages)
    assert_close(result.gradient, slope)
    assert result.loss == pytest.approx(loss, rel=1e-4, abs=1e-5)
    assert np.array_equal(result.weights, np.ones(40))
    expected = log_prob(policy, torch.tensor(theta, dtype=torch.float64), trajectories).numpy()
    np.testing.assert_allclose(result.log_probs, expected, rtol=1e-4, atol=1e-4)


@everywhere
def test_with_the_log_probabilities_of_the_policy_that_sampled(policy: Policy) -> None:
    """L_ω of another θ on those trajectories: its weights are ratios of probabilities, and are not differentiated."""
    sampled_at, trajectories, advantages = batch_of(policy, steps=40, seed=2)
    reference = estimate(policy, sampled_at, trajectories, advantages).log_probs
    theta = sampled_at + 0.01 * policy.initial_parameters(np.random.default_rng(9))
    now, then = (
        log_prob(policy, torch.tensor(at, dtype=torch.float64), trajectories).numpy() for at in (theta, sampled_at)
    )
    weights = np.exp(now - then)
    assert np.ptp(weights) > 1e-3
    loss, slope = autograd(policy, theta, trajectories, advantages * weights)
    result = estimate(policy, theta, trajectories, advantages, reference)
    np.testing.assert_allclose(result.weights, weights, rtol=1e-3)
    assert_close(result.gradient, slope)
    assert result.loss == pytest.approx(loss, rel=1e-3, abs=1e-5)


@everywhere
def test_weights_are_exactly_one_at_the_sampling_policy(policy: Policy) -> None:
    """So that the first inner step of a round has mean(ω) = 1 and v = μ."""
    theta, trajectories, advantages = batch_of(policy, steps=40, seed=3)
    plain = estimate(policy, theta, trajectories, advantages)
    weighted = estimate(policy, theta, trajectories, advantages, plain.log_probs)
    assert np.array_equal(weighted.weights, np.ones(40))
    assert np.array_equal(weighted.gradient, plain.gradient)


@everywhere
def test_one_step_at_a_time(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the steps' own gradients, and the same however many rows pass through the policy together."""
    theta, trajectories, advantages = batch_of(policy, steps=11, seed=4)
    whole = estimate(policy, theta, trajectories, advantages)
    slopes = []
    for t in range(11):
        step = dataclasses.replace(
            trajectories,
            observations=trajectories.observations[t : t + 1],
            actions=trajectories.actions[t : t + 1],
            rewards=trajectories.rewards[:1],
            episodes=trajectories.episodes[:1],
        )
        slopes.append(autograd(policy, theta, step, advantages[t : t + 1])[1])
    assert_close(whole.gradient, np.mean(slopes, axis=0))
    monkeypatch.setattr(policies, "ROWS_AT_ONCE", 4)
    parts = estimate(policy, theta, trajectories, advantages)
    assert_close(parts.gradient, np.mean(slopes, axis=0))
    np.testing.assert_allclose(parts.log_probs, whole.log_probs, rtol=1e-5, atol=1e-5)


@everywhere
def test_finite_differences(policy: Policy) -> None:
    """Along random directions, in float64, of the loss alone."""
    theta, trajectories, advantages = batch_of(policy, steps=30, seed=5)
    result = estimate(policy, theta, trajectories, advantages)
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = rng.standard_normal(len(theta))
        direction /= np.linalg.norm(direction)
        losses = []
        for step in (1e-6, -1e-6):
            values = log_prob(policy, torch.tensor(theta + step * direction), trajectories).numpy()
            losses.append(-np.mean(advantages * values))
        slope = (losses[0] - losses[1]) / 2e-6
        size = float(np.linalg.norm(result.gradient))
        assert float(result.gradient @ direction) == pytest.approx(slope, rel=1e-2, abs=1e-4 * size)


def test_by_hand() -> None:
    """One step, two actions, no hidden layer: logits tanh(w s + b); ∂ log π(0)/∂b_0 = (1 − p_0)(1 − tanh²)."""
    policy = make_policy(dataclasses.replace(CARTPOLE, hidden=()), 1, Discrete(2))
    theta = np.array([0.5, 0.0, 0.0, 0.0], np.float32)  # Weights of the two logits, then their biases.
    trajectories = Trajectories(
        observations=np.array([[2.0]], np.float32),
        actions=np.array([0]),
        rewards=np.zeros(1),
        episodes=np.zeros(1, np.int64),
        count=1,
    )
    logit = np.tanh(1.0)
    p = np.exp(logit) / (np.exp(logit) + 1.0)
    first, second = -3.0 * (1.0 - p) * (1.0 - logit**2), 3.0 * (1.0 - p)
    result = estimate(policy, theta, trajectories, np.array([3.0], np.float32))
    assert result.gradient == pytest.approx([2.0 * first, 2.0 * second, first, second], rel=1e-5)
    assert result.loss == pytest.approx(-3.0 * np.log(p), rel=1e-5)
    assert result.log_probs == pytest.approx([np.log(p)], rel=1e-5)


def test_a_floored_dimension_counts_its_floor_and_has_no_slope() -> None:
    """σ = tanh(e⁻²⁰) at both dimensions: an action of 1 lies 5e8 σ off the mean 0, an action of 0 on it."""
    policy = make_policy(dataclasses.replace(CARTPOLE, hidden=()), 1, Box(-1, 1, (2,), np.float32))
    theta = np.array([0.0, 0.0, -30.0, -20.0], np.float32)  # W_μ, then W_σ: the first is clamped, too.
    trajectories = Trajectories(
        observations=np.ones((1, 1), np.float32),
        actions=np.array([[1.0, 0.0]], np.float32),
        rewards=np.zeros(1),
        episodes=np.zeros(1, np.int64),
        count=1,
    )
    ones = np.ones(1, np.float32)
    result = estimate(policy, theta, trajectories, ones)
    at_the_mean = 20.0 - 0.5 * np.log(2.0 * np.pi)
    assert result.log_probs == pytest.approx([-1e5 + at_the_mean], rel=1e-6)
    assert result.gradient == pytest.approx([0.0, 0.0, 0.0, 1.0], abs=1e-5)
    assert_close(result.gradient, autograd(policy, theta, trajectories, ones)[1])


@everywhere
def test_the_same_numbers_give_the_same_bits_wherever_they_lie_in_memory(policy: Policy) -> None:
    """As views at other addresses, so that a run can be repeated bit by bit."""
    theta, trajectories, advantages = batch_of(policy, steps=300, seed=6)
    expected = estimate(policy, theta, trajectories, advantages)
    for offset in (4, 20, 36):

        def moved(values: NDArray[Any], offset: int = offset) -> NDArray[Any]:
            memory = np.empty(values.nbytes + offset, np.uint8)[offset:]
            copy = memory.view(values.dtype).reshape(values.shape)
            copy[...] = values
            return copy

        elsewhere = dataclasses.replace(
            trajectories, observations=moved(trajectories.observations), actions=moved(trajectories.actions)
        )
        result = estimate(policy, moved(theta), elsewhere, moved(advantages))
        assert np.array_equal(result.gradient, expected.gradient)
        assert np.array_equal(result.log_probs, expected.log_probs)
        assert result.loss == expected.loss
