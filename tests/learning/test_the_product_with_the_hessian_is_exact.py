"""The product of the Hessian and a step is that of the exact derivatives."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from fedpg_common.learning.gradient import advantages, estimate
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import make_policy
from fedpg_common.learning.recursion import hessian_product
from fedpg_common.learning.trajectories import Trajectories
from gymnasium.spaces import Box, Discrete
from support.recursions import TASK, Bench, Numbers, exact_product


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
