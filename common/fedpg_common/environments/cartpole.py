"""CartPole-v1, a whole batch in a few numpy calls."""

from __future__ import annotations

import math

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from fedpg_common.environments.base import EnvironmentBatch

GRAVITY = 9.8
POLE_MASS = 0.1
TOTAL_MASS = POLE_MASS + 1.0
HALF_LENGTH = 0.5
POLE_MASS_LENGTH = POLE_MASS * HALF_LENGTH
FORCE = 10.0
TIME_STEP_S = 0.02
ANGLE_LIMIT_RAD = 12 * 2 * math.pi / 360
POSITION_LIMIT = 2.4


class CartPoleBatch(EnvironmentBatch):
    """Gymnasium's arithmetic, in its order of operations, on float64 columns."""

    def __init__(self) -> None:
        """A batch without episodes: `reset` starts them."""
        self.observation_size = 4
        self.action_space = Discrete(2)
        self._state = np.empty((4, 0))

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `EnvironmentBatch.reset`."""
        self._state = np.empty((4, len(seeds)))
        for i, seed in enumerate(seeds.tolist()):
            self._state[:, i] = np.random.Generator(np.random.PCG64(seed)).uniform(-0.05, 0.05, size=4)
        return self._state.T.astype(np.float32, order="C")

    def step(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`."""
        _, x_dot, angle, angle_dot = self._state
        force = np.where(actions == 1, FORCE, -FORCE)
        cos, sin = np.cos(angle), np.sin(angle)
        pull = (force + POLE_MASS_LENGTH * np.square(angle_dot) * sin) / TOTAL_MASS
        angle_acc = (GRAVITY * sin - cos * pull) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * np.square(cos) / TOTAL_MASS))
        x_acc = pull - POLE_MASS_LENGTH * angle_acc * cos / TOTAL_MASS
        self._state = self._state + TIME_STEP_S * np.stack((x_dot, x_acc, angle_dot, angle_acc))
        ended = (np.abs(self._state[0]) > POSITION_LIMIT) | (np.abs(self._state[2]) > ANGLE_LIMIT_RAD)
        return self._state.T.astype(np.float32, order="C"), np.ones(len(actions)), ended

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        self._state = self._state[:, live]

    def close(self) -> None:
        """Nothing to release."""
