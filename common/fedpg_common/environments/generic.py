"""Any Gymnasium environment with Box observations and Discrete or Box actions: one instance an episode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.errors import UsageError


class GymnasiumBatch(EnvironmentBatch):
    """Environments made by `make`, as many as the largest batch so far. Box observations and actions are flattened.

    Actions are handed on as they are: one outside a Box's bounds is the environment's to clip, as most do.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]]) -> None:
        """Make the first environment. Raises UsageError if its spaces are not supported, and what `make` raises."""
        self._make = make
        self._environments = [make()]
        observations, actions = self._environments[0].observation_space, self._environments[0].action_space
        if not isinstance(observations, Box):
            raise UsageError(f"observations must be a Box, not {observations}")
        if not isinstance(actions, Discrete) and not (isinstance(actions, Box) and actions.dtype.kind == "f"):
            raise UsageError(f"actions must be Discrete or a Box of real numbers, not {actions}")
        self.observation_size = math.prod(observations.shape)
        self.action_space = actions
        self._dtype = observations.dtype
        self._live: list[gymnasium.Env[Any, Any]] = []

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[Any]:
        """See `EnvironmentBatch.reset`."""
        while len(self._environments) < len(seeds):
            self._environments.append(self._make())
        self._live = self._environments[: len(seeds)]
        observations = np.empty((len(seeds), self.observation_size), self._dtype)
        for row, environment, seed in zip(observations, self._live, seeds.tolist(), strict=True):
            row[:] = np.ravel(environment.reset(seed=seed)[0])
        return observations

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`."""
        count, space = len(self._live), self.action_space
        observations = np.empty((count, self.observation_size), self._dtype)
        rewards, ended = np.empty(count), np.empty(count, np.bool_)
        if isinstance(space, Discrete):
            moves = actions + space.start
        else:
            moves = actions.reshape(count, *space.shape).astype(space.dtype, copy=False)
        for i, environment in enumerate(self._live):
            observation, reward, terminated, truncated, _ = environment.step(moves[i])
            observations[i] = np.ravel(observation)
            rewards[i] = reward
            ended[i] = terminated or truncated
        return observations, rewards, ended

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        self._live = [environment for environment, stays in zip(self._live, live.tolist(), strict=True) if stays]

    def close(self) -> None:
        """See `EnvironmentBatch.close`."""
        for environment in self._environments:
            environment.close()
        self._environments, self._live = [], []
