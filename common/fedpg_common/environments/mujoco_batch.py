"""Batches of a MuJoCo model of Gymnasium's, in whose simulation the states of the episodes take turns."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.environments.physics import set_model

STATE = int(
    mujoco.mjtState.mjSTATE_QPOS
    | mujoco.mjtState.mjSTATE_QVEL
    | mujoco.mjtState.mjSTATE_WARMSTART
    | mujoco.mjtState.mjSTATE_CTRL
)
"""All that a step of these models depends on, in MuJoCo's order: they have no activations, and time is not observed."""

_log = logging.getLogger(__name__)
_one_handler = threading.RLock()


class MujocoBatch(EnvironmentBatch):
    """Gymnasium's model, without what it computes for rendering and `info` alone.

    Writing a state into one MjData and reading it back costs less than the cache misses of one MjData an episode.
    """

    noise_scale: float
    """Of the positions and velocities with which episodes start."""

    def __init__(self, environment: Any, hidden: int = 0) -> None:
        """Take over the model of an environment, of whose positions the first `hidden` are not observed."""
        self.observation_size = environment.observation_space.shape[0]
        self._model, self._data = environment.model, environment.data
        self._frames = environment.frame_skip
        self._start = environment.init_qpos, environment.init_qvel
        self._observed = slice(hidden, self._model.nq + self._model.nv)
        self._set_states(np.empty((0, mujoco.mj_stateSize(self._model, STATE))))

    @abstractmethod
    def _velocity_noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """What an episode's velocities (nv,) differ by from the model's at its start."""

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `EnvironmentBatch.reset`."""
        model, data = self._model, self._data
        self._set_states(np.empty((len(seeds), self._states.shape[1])))
        qpos, qvel = self._start
        for row, seed in zip(self._rows, seeds.tolist(), strict=True):
            rng = np.random.Generator(np.random.PCG64(seed))
            mujoco.mj_resetData(model, data)
            data.qpos[:] = qpos + rng.uniform(-self.noise_scale, self.noise_scale, model.nq)
            data.qvel[:] = qvel + self._velocity_noise(rng)
            mujoco.mj_forward(model, data)
            mujoco.mj_getState(model, data, row, STATE)
        return self._observations()

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        self._set_states(self._states[live])

    def close(self) -> None:
        """Drop the states."""
        self._set_states(self._states[:0])

    def _observations(self) -> NDArray[np.float64]:
        return self._states[:, self._observed].copy()

    def _simulate(self, data: mujoco.MjData, rows: list[NDArray[np.float64]]) -> None:
        """Step these states, one after the other, in one simulation."""
        model, frames = self._model, self._frames
        write, step, read = mujoco.mj_setState, mujoco.mj_step, mujoco.mj_getState
        for row in rows:
            write(model, data, row, STATE)
            step(model, data, frames)
            read(model, data, row, STATE)

    def _set_states(self, states: NDArray[np.float64]) -> None:
        self._states = states
        self._rows = list(states)


def load(environment_id: str, gravity: float, mass_scale: float) -> Any:
    """Gymnasium's environment, closed, with its model's physics set. Raises UsageError for what cannot be set."""
    with warnings_logged():
        environment: Any = gymnasium.make(environment_id).unwrapped
    environment.close()
    set_model(environment.model, environment.data, gravity=gravity, mass_scale=mass_scale)
    return environment


@contextmanager
def warnings_logged() -> Iterator[None]:
    """Hand MuJoCo's warnings to `logging`: by itself it writes them to MUJOCO_LOG.TXT in the working folder.

    One thread at a time: MuJoCo has one handler for all, and aborts the process if it changes while a warning is given.
    """
    with _one_handler:
        handler = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(_log.debug)
        try:
            yield
        finally:
            mujoco.set_mju_user_warning(handler)
