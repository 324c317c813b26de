"""A fast batch: Gymnasium's Pendulum-v1, all episodes of a batch in a few numpy calls.

fedpg train --task pendulums.toml
"""

from __future__ import annotations

from typing import Any

import numpy as np
from fedpg_common.environments import EnvironmentBatch
from gymnasium.spaces import Box
from numpy.typing import NDArray

STEP_S, SPEED_MAX, TORQUE_MAX = 0.05, 8.0, 2.0
Floats = NDArray[np.float64]


class Pendulums(EnvironmentBatch):
    """Gymnasium's arithmetic, in its order of operations, with a row per episode in place of a single number."""

    gymnasium_id = "Pendulum-v1"

    def __init__(self, g: float = 10.0) -> None:
        if not g >= 0:
            raise ValueError(f"g must be at least 0, not {g}")
        self.observation_size = 3
        self.action_space = Box(-TORQUE_MAX, TORQUE_MAX, (1,), np.float32)
        self._pull = 3 * g / 2.0
        self._angle = self._speed = np.empty(0)

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.float32]:
        high = np.array([np.pi, 1.0])
        starts = [np.random.Generator(np.random.PCG64(seed)).uniform(-high, high) for seed in seeds.tolist()]
        self._angle, self._speed = np.array(starts).reshape(-1, 2).T
        return self._observe()

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float32], Floats, NDArray[np.bool_]]:
        torque = np.clip(actions[:, 0], -TORQUE_MAX, TORQUE_MAX)
        upright = (self._angle + np.pi) % (2 * np.pi) - np.pi
        costs = upright**2 + 0.1 * self._speed**2 + 0.001 * torque**2
        speed = self._speed + (self._pull * np.sin(self._angle) + 3.0 * torque) * STEP_S
        self._speed = np.clip(speed, -SPEED_MAX, SPEED_MAX)
        self._angle = self._angle + self._speed * STEP_S
        return self._observe(), -costs, np.zeros(len(torque), np.bool_)

    def keep(self, live: NDArray[np.bool_]) -> None:
        self._angle, self._speed = self._angle[live], self._speed[live]

    def close(self) -> None:
        """There is nothing to release."""

    def _observe(self) -> NDArray[np.float32]:
        return np.stack((np.cos(self._angle), np.sin(self._angle), self._speed), axis=1).astype(np.float32)
