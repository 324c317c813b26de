"""HalfCheetah-v5: one MuJoCo model, one MjData an episode."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments.base import EnvironmentBatch


class HalfCheetahBatch(EnvironmentBatch):
    """Gymnasium's model, steps and reward, without what it computes for `info` alone."""

    def __init__(self) -> None:
        """Load Gymnasium's model. Raises gymnasium.error.DependencyNotInstalled without MuJoCo."""
        environment: Any = gymnasium.make("HalfCheetah-v5").unwrapped
        self.action_space = environment.action_space
        self.observation_size = environment.observation_space.shape[0]
        self._model = environment.model
        self._frames = environment.frame_skip
        self._step_s = environment.dt
        self._start = environment.init_qpos, environment.init_qvel
        environment.close()
        self._simulations: list[_Simulation] = []
        self._live: list[_Simulation] = []
        self._states: list[NDArray[np.float64]] = []
        self._positions = np.empty(0)

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `EnvironmentBatch.reset`."""
        while len(self._simulations) < len(seeds):
            self._simulations.append(_Simulation(self._model))
        self._set_live(self._simulations[: len(seeds)])
        qpos, qvel = self._start
        for simulation, seed in zip(self._live, seeds.tolist(), strict=True):
            rng = np.random.Generator(np.random.PCG64(seed))
            mujoco.mj_resetData(self._model, simulation.data)
            simulation.qpos[:] = qpos + rng.uniform(-0.1, 0.1, len(qpos))
            simulation.qvel[:] = qvel + 0.1 * rng.standard_normal(len(qvel))
            mujoco.mj_forward(self._model, simulation.data)
        return self._observe()

    def step(self, actions: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`. Episodes of this environment never end by themselves."""
        step, model, frames = mujoco.mj_step, self._model, self._frames
        for simulation, action in zip(self._live, actions, strict=True):
            simulation.ctrl[:] = action
            step(model, simulation.data, frames)
        before = self._positions
        observations = self._observe()
        rewards = (self._positions - before) / self._step_s - 0.1 * np.square(actions).sum(axis=1)
        return observations, rewards, np.zeros(len(actions), np.bool_)

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        self._set_live([simulation for simulation, stays in zip(self._live, live.tolist(), strict=True) if stays])
        self._positions = self._positions[live]

    def close(self) -> None:
        """Release the simulations."""
        self._simulations = []
        self._set_live([])

    def _set_live(self, simulations: list[_Simulation]) -> None:
        self._live = simulations
        self._states = [state for simulation in simulations for state in (simulation.qpos, simulation.qvel)]

    def _observe(self) -> NDArray[np.float64]:
        # One call gathers all states; a call or two an episode would cost a twentieth of its physics.
        states = np.concatenate(self._states).reshape(len(self._live), -1)
        self._positions = states[:, 0]
        return states[:, 1:]


class _Simulation:
    """An MjData with the views into it that every step needs: MuJoCo makes a new one at each access."""

    __slots__ = ("ctrl", "data", "qpos", "qvel")

    def __init__(self, model: Any) -> None:
        self.data = mujoco.MjData(model)
        self.ctrl: NDArray[np.float64] = self.data.ctrl
        self.qpos: NDArray[np.float64] = self.data.qpos
        self.qvel: NDArray[np.float64] = self.data.qvel
