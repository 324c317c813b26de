"""InvertedPendulum-v5: one MuJoCo simulation for all episodes, whose states take turns in it."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments.actions import ActionScale
from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.environments.half_cheetah import STATE, warnings_logged
from fedpg_common.environments.physics import set_model

NOISE_SCALE = 0.01
ANGLE_LIMIT_RAD = 0.2


class InvertedPendulumBatch(EnvironmentBatch):
    """Gymnasium's model, steps and reward, without what it computes for rendering and `info` alone."""

    def __init__(self, gravity: float = -9.81, mass_scale: float = 1.0) -> None:
        """Load Gymnasium's model; `gravity` is along z, in m/s², and `mass_scale` multiplies all masses."""
        with warnings_logged():
            environment: Any = gymnasium.make("InvertedPendulum-v5").unwrapped
        environment.close()
        set_model(environment.model, environment.data, gravity=gravity, mass_scale=mass_scale)
        self._scale = ActionScale(environment.action_space)
        self.action_space = self._scale.policy_space
        self.observation_size = environment.observation_space.shape[0]
        self._model, self._data = environment.model, environment.data
        self._frames = environment.frame_skip
        self._start = environment.init_qpos, environment.init_qvel
        self._set_states(np.empty((0, mujoco.mj_stateSize(self._model, STATE))))

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `EnvironmentBatch.reset`."""
        model, data = self._model, self._data
        self._set_states(np.empty((len(seeds), self._states.shape[1])))
        qpos, qvel = self._start
        for row, seed in zip(self._rows, seeds.tolist(), strict=True):
            rng = np.random.Generator(np.random.PCG64(seed))
            mujoco.mj_resetData(model, data)
            data.qpos[:] = qpos + rng.uniform(-NOISE_SCALE, NOISE_SCALE, model.nq)
            data.qvel[:] = qvel + rng.uniform(-NOISE_SCALE, NOISE_SCALE, model.nv)
            mujoco.mj_forward(model, data)
            mujoco.mj_getState(model, data, row, STATE)
        return self._states[:, : self.observation_size].copy()

    def step(self, actions: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`."""
        model, data, frames = self._model, self._data, self._frames
        write, step, read = mujoco.mj_setState, mujoco.mj_step, mujoco.mj_getState
        self._states[:, -model.nu :] = self._scale.to_environment(actions)
        for row in self._rows:
            write(model, data, row, STATE)
            step(model, data, frames)
            read(model, data, row, STATE)
        observations = self._states[:, : self.observation_size].copy()
        ended = (np.abs(observations[:, 1]) > ANGLE_LIMIT_RAD) | ~np.isfinite(observations).all(axis=1)
        return observations, (~ended).astype(np.float64), ended

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        self._set_states(self._states[live])

    def close(self) -> None:
        """Drop the states."""
        self._set_states(self._states[:0])

    def _set_states(self, states: NDArray[np.float64]) -> None:
        self._states = states
        self._rows = list(states)
