"""InvertedPendulum-v5: one MuJoCo simulation for all episodes, whose states take turns in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments.actions import ActionScale
from fedpg_common.environments.mujoco_batch import MujocoBatch, load

ANGLE_LIMIT_RAD = 0.2


class InvertedPendulumBatch(MujocoBatch):
    """Gymnasium's model, steps and reward."""

    noise_scale = 0.01

    def __init__(self, gravity: float = -9.81, mass_scale: float = 1.0) -> None:
        """Load Gymnasium's model; `gravity` is along z, in m/s², and `mass_scale` multiplies all masses."""
        environment = load("InvertedPendulum-v5", gravity, mass_scale)
        self._scale = ActionScale(environment.action_space)
        self.action_space = self._scale.policy_space
        super().__init__(environment)

    def _velocity_noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        noise: NDArray[np.float64] = rng.uniform(-self.noise_scale, self.noise_scale, self._model.nv)
        return noise

    def step(self, actions: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`."""
        self._states[:, -self._model.nu :] = self._scale.to_environment(actions)
        self._simulate(self._data, self._rows)
        observations = self._observations()
        ended = (np.abs(observations[:, 1]) > ANGLE_LIMIT_RAD) | ~np.isfinite(observations).all(axis=1)
        return observations, (~ended).astype(np.float64), ended
