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
    """Environments made by `make`, as many as the largest batch so far. Box observations and actions are flattened."""

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]]) -> None:
        """Make the first environment. Raises UsageError if its spaces are not supported, and what `make` raises."""
        self._make = make
        self._environments = [make()]
        observations, actions = self._environments[0].observation_space, self._environments[0].action_space
        if not isinstance(observations, Box):
            raise UsageError(f"observations must be a Box, not {type(observations).__name__}")
        if not (isinstance(actions, Discrete) or (isinstance(actions, Box) and actions.dtype == np.float32)):
            raise UsageError(f"actions must be Discrete or a Box of float32, not {actions}")
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
        for environment, seed, row in zip(self._live, seeds.tolist(), observations, strict=True):
            row[:] = np.ravel(environment.reset(seed=seed)[0])
        return observations

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`."""
        count = len(self._live)
        observations = np.empty((count, self.observation_size), self._dtype)
        rewards, ended = np.empty(count), np.empty(count, np.bool_)
        space = self.action_space
        moves = actions + space.start if isinstance(space, Discrete) else actions.reshape(count, *space.shape)
        for i, environment in enumerate(self._live):
            observation, rewards[i], terminated, truncated, _ = environment.step(moves[i])
            observations[i] = np.ravel(observation)
            ended[i] = terminated or truncated
        return observations, rewards, ended

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        self._live = [environment for environment, stays in zip(self._live, live, strict=True) if stays]

    def close(self) -> None:
        """See `EnvironmentBatch.close`."""
        for environment in self._environments:
            environment.close()
