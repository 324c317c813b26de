"""Any Gymnasium environment with Box observations and Discrete or Box actions: one instance per episode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from fedpg_common.environments.actions import ActionScale
from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.environments.global_random import GlobalRandom
from fedpg_common.environments.guard import Guard, GuardedEnvironment, made_again
from fedpg_common.errors import UsageError


class GymnasiumBatch(EnvironmentBatch):
    """Environments made by `make`, as many as the largest batch so far. Box observations and actions are flattened."""

    def __init__(
        self,
        make: Callable[[], gymnasium.Env[Any, Any]],
        guard: Guard | None = None,
        global_random: GlobalRandom | None = None,
    ) -> None:
        """Make the first environment. Raises UsageError if its spaces are not supported, and what `make` raises."""
        self._make = make
        self._guard = guard = guard or Guard("unnamed", "unnamed")
        self._global_random = global_random or GlobalRandom()
        with self._global_random.during_making(0):
            first = make()
        observations = first.observation_space
        if not isinstance(observations, Box):
            raise UsageError(f"observations must be a Box, not {observations}")
        self._shape = observations.shape
        self.observation_size = math.prod(observations.shape)
        if self.observation_size < 1:
            raise UsageError(f"observations must be a Box of one number at least, not {observations}")
        self._scale = ActionScale(first.action_space)
        self.action_space = self._scale.policy_space
        self._dtype = observations.dtype
        self._environments = [GuardedEnvironment(first, guard)]
        self._live: list[GuardedEnvironment] = []

    @contextmanager
    def drawing(self, round_number: int, step: int = 0, *, finite_rewards: bool = True) -> Iterator[None]:
        """See `EnvironmentBatch.drawing`."""
        self._guard.wants_finite_rewards = finite_rewards
        try:
            with self._global_random.during_episodes(round_number, step):
                yield
        finally:
            self._guard.wants_finite_rewards = True

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[Any]:
        """See `EnvironmentBatch.reset`."""
        while len(self._environments) < len(seeds):
            self._environments.append(self._another())
        self._live = self._environments[: len(seeds)]
        observations = self._rows(len(seeds))
        for i, (environment, seed) in enumerate(zip(self._live, seeds.tolist(), strict=True)):
            observations = self._put(observations, i, environment.reset(seed))
        return self._finished(observations, "reset")

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`."""
        count, dtype = len(self._live), self._dtype
        observations, rewards, ended = self._rows(count), np.empty(count), np.empty(count, np.bool_)
        moves = self._scale.to_environment(actions)
        for i, environment in enumerate(self._live):
            observation, rewards[i], ended[i] = environment.step(moves[i])
            if observation.dtype == dtype:
                observations[i] = observation
            else:
                observations = self._put(observations, i, observation)
                dtype = self._dtype
        return self._finished(observations, "step"), rewards, ended

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        self._live = [environment for environment, stays in zip(self._live, live.tolist(), strict=True) if stays]

    def close(self) -> None:
        """See `EnvironmentBatch.close`."""
        for environment in self._environments:
            environment.close()
        self._environments, self._live = [], []

    def _another(self) -> GuardedEnvironment:
        with self._global_random.during_making(len(self._environments)):
            environment = made_again(self._make, self._guard)
        first = self._environments[0].environment
        for kind in ("observation_space", "action_space"):
            spaces = getattr(first, kind), getattr(environment, kind)
            if spaces[0] != spaces[1]:
                raise self._guard.wrong(
                    "__init__", f"each instance must have the same {kind}, but one has {spaces[0]}, another {spaces[1]}"
                )
        return GuardedEnvironment(environment, self._guard)

    def _rows(self, count: int) -> NDArray[Any]:
        return np.empty((count, *self._shape), self._dtype)

    def _put(self, observations: NDArray[Any], i: int, observation: NDArray[Any]) -> NDArray[Any]:
        """Copy an observation into its row. One of another type than declared makes all of them float64 from now on."""
        if observation.dtype != self._dtype and self._dtype != np.float64:
            self._dtype = np.dtype(np.float64)
            observations = observations.astype(np.float64)
        observations[i] = observation
        return observations

    def _finished(self, observations: NDArray[Any], method: str) -> NDArray[Any]:
        self._guard.check_finite(method, observations)
        return observations.reshape(len(observations), self.observation_size)
