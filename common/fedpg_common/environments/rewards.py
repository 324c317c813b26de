"""A batch whose rewards an agent perceives in its own way: scaled, shifted, with noise."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import Reward

if TYPE_CHECKING:
    from fedpg_common.environments.helpers import HelperPool

NOISE = 0x72657761
"""Keeps an episode's noise apart from what its environment draws from the same seed."""
DRAWS_AT_ONCE = 64


class RewardBatch(EnvironmentBatch):
    """Another batch with the rewards scale · r + shift + N(0, noise²).

    The noise of an episode follows from its seed, so that it depends neither on the batch nor on its size.
    """

    def __init__(self, batch: EnvironmentBatch, reward: Reward) -> None:
        """Take over `batch`, and close it some time."""
        self._batch = batch
        self._reward = reward
        self.observation_size, self.action_space = batch.observation_size, batch.action_space
        self._generators: list[np.random.Generator] = []
        self._draws = np.empty((0, DRAWS_AT_ONCE))
        self._used = 0

    def drawing(self, round_number: int, step: int = 0, *, finite_rewards: bool = True) -> AbstractContextManager[None]:
        """See `EnvironmentBatch.drawing`."""
        return self._batch.drawing(round_number, step, finite_rewards=finite_rewards)

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[Any]:
        """See `EnvironmentBatch.reset`."""
        if self._reward.noise:
            self._generators = [_generator(seed) for seed in seeds.tolist()]
            self._used = DRAWS_AT_ONCE
        return self._batch.reset(seeds)

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`."""
        observations, rewards, ended = self._batch.step(actions)
        if not self._reward.noise:
            return observations, self._perceived(rewards, None), ended
        if self._used == DRAWS_AT_ONCE:
            draws = [generator.standard_normal(DRAWS_AT_ONCE) for generator in self._generators]
            self._draws = np.array(draws).reshape(-1, DRAWS_AT_ONCE)
            self._used = 0
        noise = self._draws[:, self._used]
        self._used += 1
        return observations, self._perceived(rewards, noise), ended

    def share_helpers(self, pool: HelperPool) -> None:
        """See `EnvironmentBatch.share_helpers`."""
        self._batch.share_helpers(pool)

    def use_threads(self, count: int) -> None:
        """See `EnvironmentBatch.use_threads`."""
        self._batch.use_threads(count)

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        if self._reward.noise:
            self._draws = self._draws[live] if self._used < DRAWS_AT_ONCE else self._draws
            self._generators = [one for one, stays in zip(self._generators, live.tolist(), strict=True) if stays]
        self._batch.keep(live)

    def rollout(
        self, actor: object, horizon: int, seeds: NDArray[np.int64], rng: np.random.Generator | None
    ) -> Trajectories | None:
        """See `EnvironmentBatch.rollout`."""
        whole = self._batch.rollout(actor, horizon, seeds, rng)
        if whole is None:
            return None
        noise = np.empty(whole.steps) if self._reward.noise else None
        if noise is not None:
            order = np.argsort(whole.episodes, kind="stable")  # the steps of each episode in turn
            draws = zip(seeds.tolist(), whole.lengths().tolist(), strict=True)
            noise[order] = np.concatenate([_generator(seed).standard_normal(length) for seed, length in draws])
        return replace(whole, rewards=self._perceived(whole.rewards, noise))

    def close(self) -> None:
        """See `EnvironmentBatch.close`."""
        self._batch.close()

    def _perceived(self, rewards: NDArray[np.float64], noise: NDArray[np.float64] | None) -> NDArray[np.float64]:
        perceived = self._reward.scale * rewards + self._reward.shift
        return perceived if noise is None else perceived + self._reward.noise * noise


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, NOISE])))
