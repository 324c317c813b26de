"""A rollout holds one whole episode a seed, in the order of time, and the same seeds give the same bits."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest
from fedpg_common.environments import EnvironmentBatch, make_environments
from fedpg_common.environments.rollouts import sample
from fedpg_common.learning.gradient import advantages, estimate
from fedpg_common.learning.policies import make_policy
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, LUNAR_LANDER, Task
from gymnasium.spaces import Discrete
from numpy.typing import NDArray


class Countdown(EnvironmentBatch):
    """An episode of seed s lasts s steps. It shows (s, steps so far) in float64 and pays 10 s + steps so far."""

    observation_size = 2
    action_space = Discrete(100)

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.float64]:
        """Start."""
        self._seeds, self._steps = seeds.astype(float), 0
        return self._observe()

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Insist on the live episodes' own actions."""
        assert actions.tolist() == (self._seeds + self._steps).tolist()
        assert not self._over()
        self._steps += 1
        return self._observe(), 10.0 * self._seeds + self._steps, self._seeds == self._steps

    def keep(self, live: NDArray[np.bool_]) -> None:
        """Drop."""
        self._seeds = self._seeds[live]

    def close(self) -> None:
        """Nothing."""

    def _observe(self) -> NDArray[np.float64]:
        return np.stack((self._seeds, np.full(len(self._seeds), float(self._steps))), axis=1)

    def _over(self) -> bool:
        return bool((self._seeds <= self._steps).any())


def countdown(seeds: list[int], horizon: int) -> Trajectories:
    """Play, with action s + steps so far."""
    return sample(Countdown(), lambda s: s.sum(axis=1).astype(np.int64), horizon, np.array(seeds))


def test_by_hand() -> None:
    """Episodes of 2, 1 and 4 steps, the last cut at 3."""
    played = countdown([2, 1, 4], horizon=3)
    assert played.count == 3
    assert played.steps == 6
    assert played.episodes.tolist() == [0, 1, 2, 0, 2, 2]
    assert played.observations.tolist() == [[2, 0], [1, 0], [4, 0], [2, 1], [4, 1], [4, 2]]
    assert played.observations.dtype == np.float32
    assert played.actions.tolist() == [2, 1, 4, 3, 5, 6]
    assert played.rewards.tolist() == [21, 11, 41, 22, 42, 43]
    assert played.lengths().tolist() == [2, 1, 3]
    assert played.returns().tolist() == [43, 11, 126]


@pytest.mark.parametrize("seeds", [[1], [5], [1, 1, 1], [3, 9, 2, 2, 7], [1, 30, 1]])
@pytest.mark.parametrize("horizon", [1, 2, 8])
def test_lengths_and_returns(seeds: list[int], horizon: int) -> None:
    """Of each episode, whichever end first."""
    played = countdown(seeds, horizon)
    lengths = [min(seed, horizon) for seed in seeds]
    assert played.lengths().tolist() == lengths
    assert played.returns().tolist() == [
        sum(10 * seed + t for t in range(1, length + 1)) for seed, length in zip(seeds, lengths, strict=True)
    ]
    assert played.steps == sum(lengths) == len(played.observations) == len(played.actions)


@pytest.mark.parametrize("task", [CARTPOLE, LUNAR_LANDER, HALF_CHEETAH], ids=lambda task: task.name)
def test_an_episode_does_not_depend_on_its_company(task: Task) -> None:
    """Alone, in pairs or all together, as long as actions are chosen row by row."""
    environments = make_environments(task)

    def choose(s: NDArray[np.float32]) -> NDArray[Any]:
        moves: NDArray[Any] = np.cos(10 * s[:, :6])
        if isinstance(environments.action_space, Discrete):
            moves = (np.abs(s[:, :3]).sum(axis=1) * 1000).astype(np.int64) % int(environments.action_space.n)
        return moves

    seeds = np.array([11, 5, 8, 2, 19, 3])
    together = sample(environments, choose, 80, seeds)
    for size in (1, 2, 4):
        for start in range(0, len(seeds), size):
            part = sample(environments, choose, 80, seeds[start : start + size])
            for i in range(part.count):
                own, other = part.episodes == i, together.episodes == start + i
                assert np.array_equal(part.observations[own], together.observations[other])
                assert np.array_equal(part.actions[own], together.actions[other])
                assert np.array_equal(part.rewards[own], together.rewards[other])
    environments.close()


@pytest.mark.parametrize("task", [CARTPOLE, LUNAR_LANDER, HALF_CHEETAH], ids=lambda task: task.name)
def test_the_same_seeds_give_the_same_bits(task: Task) -> None:
    """From sampling to the gradient, twice in one batch of environments and once in another."""
    task = dataclasses.replace(task, horizon=60)
    used, new = make_environments(task), make_environments(task)
    policy = make_policy(task, used.observation_size, used.action_space)
    theta = policy.initial_parameters(np.random.default_rng(0))
    results = []
    for environments in (used, used, new):
        choose = partial(policy.actor(theta).sample, rng=np.random.default_rng(1))
        played = sample(environments, choose, task.horizon, np.arange(5))
        results.append((played, estimate(policy, theta, played, advantages(played, task.gamma))))
    for played, result in results[1:]:
        assert np.array_equal(played.observations, results[0][0].observations)
        assert np.array_equal(played.actions, results[0][0].actions)
        assert np.array_equal(played.rewards, results[0][0].rewards)
        assert np.array_equal(result.gradient, results[0][1].gradient)
    used.close()
    new.close()
