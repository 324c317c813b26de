"""HalfCheetah-v5: one MuJoCo model, one MjData an episode."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments.base import EnvironmentBatch


class HalfCheetahBatch(EnvironmentBatch):
    """Gymnasium's model, steps and reward without what it computes for `info` alone."""

    def __init__(self) -> None:
        """Load Gymnasium's model. Raises gymnasium.error.DependencyNotInstalled without MuJoCo."""
        environment: Any = gymnasium.make("HalfCheetah-v5").unwrapped
        self.action_space = environment.action_space
        self.observation_size = environment.observation_space.shape[0]
        self._model = environment.model
        self._frames = environment.frame_skip
        self._step_s = environment.dt
        self._initial = environment.init_qpos, environment.init_qvel
        self._data: list[Any] = []
        self._live: list[Any] = []
        environment.close()

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `EnvironmentBatch.reset`."""
        while len(self._data) < len(seeds):
            self._data.append(mujoco.MjData(self._model))
        self._live = self._data[: len(seeds)]
        qpos, qvel = self._initial
        for data, seed in zip(self._live, seeds.tolist(), strict=True):
            rng = np.random.Generator(np.random.PCG64(seed))
            mujoco.mj_resetData(self._model, data)
            data.qpos[:] = qpos + rng.uniform(-0.1, 0.1, size=len(qpos))
            data.qvel[:] = qvel + 0.1 * rng.standard_normal(len(qvel))
            mujoco.mj_forward(self._model, data)
        return self._observe()

    def step(self, actions: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`. Episodes of this environment never end by themselves."""
        before = np.array([data.qpos[0] for data in self._live])
        for data, action in zip(self._live, actions, strict=True):
            data.ctrl[:] = action
            mujoco.mj_step(self._model, data, self._frames)
        after = np.array([data.qpos[0] for data in self._live])
        cost = 0.1 * np.square(actions).sum(axis=1)
        rewards = (after - before) / self._step_s - cost
        return self._observe(), rewards, np.zeros(len(actions), np.bool_)

    def _observe(self) -> NDArray[np.float64]:
        return np.stack([np.concatenate((data.qpos[1:], data.qvel)) for data in self._live])

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        self._live = [data for data, stays in zip(self._live, live, strict=True) if stays]

    def close(self) -> None:
        """Release the simulations."""
        self._data, self._live = [], []
