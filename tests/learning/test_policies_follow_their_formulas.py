"""Policies are the distributions of the design, whether they act, are evaluated, or are drawn afresh."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from fedpg_common.learning.policies import Policy, make_policy
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, LUNAR_LANDER, Task
from gymnasium.spaces import Box, Discrete, Space
from numpy.typing import NDArray

BOX = Box(-1, 1, (6,), np.float32)
LINEAR = dataclasses.replace(HALF_CHEETAH, hidden=())
WIDE = dataclasses.replace(LUNAR_LANDER, hidden=(32,), activation="relu")

DISCRETE: list[tuple[Task, int, int]] = [(CARTPOLE, 4, 2), (LUNAR_LANDER, 8, 4), (LINEAR, 3, 3), (WIDE, 5, 7)]
CONTINUOUS: list[tuple[Task, int]] = [(HALF_CHEETAH, 17), (LINEAR, 3), (WIDE, 5)]


def modules(
    policy: Policy, theta: NDArray[np.float32], activation: str
) -> tuple[torch.nn.Sequential, dict[str, torch.Tensor]]:
    """The policy's layers as torch's own modules, and all its tensors by name."""
    tensors = {name: torch.tensor(view.copy()) for name, view in policy.spec.views(theta).items()}
    layers: list[torch.nn.Module] = []
    for number in itertools.count():
        if f"layers.{number}.weight" not in tensors:
            break
        if layers:
            layers.append(torch.nn.ReLU() if activation == "relu" else torch.nn.Tanh())
        weight, bias = tensors[f"layers.{number}.weight"], tensors[f"layers.{number}.bias"]
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data, layer.bias.data = weight, bias
        layers.append(layer)
    return torch.nn.Sequential(*layers), tensors


def categorical(
    policy: Policy, theta: NDArray[np.float32], task: Task, s: NDArray[np.float32]
) -> torch.distributions.Categorical:
    """Logits through tanh."""
    network, _ = modules(policy, theta, task.activation)
    return torch.distributions.Categorical(logits=torch.tanh(network(torch.tensor(s)).detach()))


def normal(
    policy: Policy, theta: NDArray[np.float32], task: Task, s: NDArray[np.float32]
) -> torch.distributions.Normal:
    """Mean = tanh(W_μ h), std = tanh(exp(clamp(W_σ h, −20, −2)))."""
    trunk, tensors = modules(policy, theta, task.activation)
    h = trunk(torch.tensor(s)).detach()
    mean = torch.tanh(h @ tensors["mean.weight"].T)
    return torch.distributions.Normal(mean, torch.tanh(torch.exp(torch.clamp(h @ tensors["std.weight"].T, -20, -2))))


def log_prob(distribution: torch.distributions.Distribution, actions: NDArray[Any]) -> NDArray[np.float32]:
    """Torch's own."""
    return np.asarray(distribution.log_prob(torch.tensor(actions)))


@pytest.mark.parametrize(("task", "size", "actions"), DISCRETE)
def test_discrete_log_probabilities_and_greedy_actions(task: Task, size: int, actions: int) -> None:
    """Of every action, in torch and in numpy."""
    policy = make_policy(task, size, Discrete(actions))
    rng = np.random.default_rng(0)
    theta = 2 * policy.initial_parameters(rng)
    s = rng.standard_normal((70, size), np.float32)
    ones = np.ones(len(s), np.float32)
    distribution = categorical(policy, theta, task, s)
    for action in range(actions):
        taken = np.full(70, action)
        expected = log_prob(distribution, taken)
        actual = policy.log_prob(torch.tensor(theta), torch.tensor(s), torch.tensor(taken))
        np.testing.assert_allclose(actual.numpy(), expected, atol=1e-6)
        np.testing.assert_allclose(policy.score(theta, s, taken, ones, 1.0).log_probs, expected, atol=1e-6)
    greedy = policy.actor(theta).greedy(s)
    assert greedy.dtype == np.int64
    assert np.array_equal(greedy, distribution.logits.argmax(dim=1).numpy())


@pytest.mark.parametrize(("task", "size"), CONTINUOUS)
def test_continuous_log_probabilities_and_greedy_actions(task: Task, size: int) -> None:
    """Summed over dimensions, each of which is floored; greedy is the mean."""
    policy = make_policy(task, size, BOX)
    rng = np.random.default_rng(0)
    theta = 2 * policy.initial_parameters(rng)
    s = rng.standard_normal((70, size), np.float32)
    ones = np.ones(len(s), np.float32)
    distribution = normal(policy, theta, task, s)
    near = policy.actor(theta).sample(s, rng)
    far = near + np.where(rng.random(near.shape) < 0.3, 500 * distribution.stddev.numpy(), 0).astype(np.float32)
    for taken in (near, far):
        each = log_prob(distribution, taken)
        assert (taken is far) == bool((each < -1e5).any())
        expected = np.maximum(each, -1e5).sum(axis=1)
        actual = policy.log_prob(torch.tensor(theta), torch.tensor(s), torch.tensor(taken))
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(policy.score(theta, s, taken, ones, 1.0).log_probs, expected, rtol=1e-5, atol=1e-4)
    greedy = policy.actor(theta).greedy(s)
    assert greedy.dtype == np.float32
    np.testing.assert_allclose(greedy, distribution.mean.numpy(), atol=1e-6)


@pytest.mark.parametrize(("task", "size", "actions"), DISCRETE)
def test_discrete_actions_are_drawn_as_often_as_they_are_likely(task: Task, size: int, actions: int) -> None:
    """Within five standard errors, at three observations."""
    policy = make_policy(task, size, Discrete(actions))
    rng = np.random.default_rng(1)
    theta = 3 * policy.initial_parameters(rng)
    draws = 20_000
    for observation in rng.standard_normal((3, size), np.float32):
        taken = policy.actor(theta).sample(np.tile(observation, (draws, 1)), rng)
        assert taken.dtype == np.int64
        p = categorical(policy, theta, task, observation[None]).probs.numpy()[0]
        frequencies = np.bincount(taken, minlength=actions) / draws
        assert frequencies.shape == (actions,)
        assert np.all(np.abs(frequencies - p) < 5 * np.sqrt(p * (1 - p) / draws))


@pytest.mark.parametrize(("task", "size"), CONTINUOUS)
def test_continuous_actions_are_drawn_with_their_mean_and_spread(task: Task, size: int) -> None:
    """Within five standard errors; dimensions are independent."""
    policy = make_policy(task, size, BOX)
    rng = np.random.default_rng(1)
    theta = policy.initial_parameters(rng)
    draws = 20_000
    observation = rng.standard_normal((1, size), np.float32)
    taken = policy.actor(theta).sample(observation.repeat(draws, axis=0), rng)
    assert taken.dtype == np.float32
    distribution = normal(policy, theta, task, observation)
    z = (taken - distribution.mean.numpy()) / distribution.stddev.numpy()
    assert np.all(np.abs(z.mean(axis=0)) < 5 / math.sqrt(draws))
    assert np.all(np.abs(np.cov(z.T) - np.eye(6)) < 5 * math.sqrt(2 / draws))


@pytest.mark.parametrize(("space", "size"), [(Discrete(4), 8), (BOX, 17)])
def test_initial_parameters_are_uniform_in_the_range_of_each_tensor(space: Space[int], size: int) -> None:
    """±1/√(size of the last dimension), for biases, too; over 200 policies both ends are nearly reached."""
    policy = make_policy(LUNAR_LANDER, size, space)
    rng = np.random.default_rng(0)
    drawn = np.stack([policy.initial_parameters(rng) for _ in range(200)])
    assert drawn.dtype == np.float32
    for tensor, place in policy.spec.slices():
        bound = 1 / math.sqrt(tensor.shape[-1])
        values = drawn[:, place] / bound
        assert np.abs(values).max() <= 1 + 1e-6
        assert values.min() < -0.97
        assert values.max() > 0.97
        assert abs(values.mean()) < 5 / math.sqrt(3 * values.size)
        assert values.var() == pytest.approx(1 / 3, rel=0.1)


def test_the_tensors_of_the_published_tasks() -> None:
    """Their number of parameters: weights and biases of each layer, and no bias on a Gaussian's heads."""
    assert make_policy(CARTPOLE, 4, Discrete(2)).spec.size == (4 * 16 + 16) + (16 * 16 + 16) + (16 * 2 + 2)
    assert make_policy(LUNAR_LANDER, 8, Discrete(4)).spec.size == (8 * 64 + 64) + (64 * 64 + 64) + (64 * 4 + 4)
    assert make_policy(HALF_CHEETAH, 17, BOX).spec.size == (17 * 64 + 64) + (64 * 64 + 64) + 2 * 64 * 6


@pytest.mark.parametrize("space", [Discrete(4), BOX])
def test_an_actor_keeps_its_parameters_and_repeats_its_draws(space: Space[int]) -> None:
    """Whatever becomes of the vector that it was made from, and of the observations that it has seen."""
    policy = make_policy(WIDE, 5, space)
    theta = policy.initial_parameters(np.random.default_rng(0))
    actor = policy.actor(theta)
    s = np.random.default_rng(1).standard_normal((9, 5), np.float32)
    before, seen = actor.sample(s, np.random.default_rng(2)), s.copy()
    theta[:] = 0.0
    assert np.array_equal(actor.sample(s, np.random.default_rng(2)), before)
    assert np.array_equal(s, seen)
