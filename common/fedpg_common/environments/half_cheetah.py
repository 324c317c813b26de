"""HalfCheetah-v5: one MuJoCo simulation a thread, in which the states of its episodes take turns.

MuJoCo releases the interpreter's lock while it steps, so that threads share a batch's episodes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
"""All that a step of this model depends on, in MuJoCo's order: it has no activations, and time is not observed."""
NOISE_SCALE = 0.1
CONTROL_COST = 0.1

_log = logging.getLogger(__name__)
_one_handler = threading.RLock()


class HalfCheetahBatch(EnvironmentBatch):
    """Gymnasium's model, steps and reward, without what it computes for `info` alone.

    Writing a state into one MjData and reading it back costs less than the cache misses of one MjData an episode.
    """

    def __init__(self, gravity: float = -9.81, mass_scale: float = 1.0) -> None:
        """Load Gymnasium's model; `gravity` is along z, in m/s², and `mass_scale` multiplies all masses."""
        with warnings_logged():
            environment: Any = gymnasium.make("HalfCheetah-v5").unwrapped
        environment.close()
        set_model(environment.model, environment.data, gravity=gravity, mass_scale=mass_scale)
        self.action_space = environment.action_space
        self.observation_size = environment.observation_space.shape[0]
        self._model, self._data = environment.model, environment.data
        self._others: list[mujoco.MjData] = []
        """Of the threads beside the caller's."""
        self._threads: ThreadPoolExecutor | None = None
        self._frames = environment.frame_skip
        self._step_s = environment.dt
        self._start = environment.init_qpos, environment.init_qvel
        # Gymnasium does not show the position along the track.
        self._observed = slice(1, self._model.nq + self._model.nv)
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
            data.qvel[:] = qvel + NOISE_SCALE * rng.standard_normal(model.nv)
            mujoco.mj_forward(model, data)
            mujoco.mj_getState(model, data, row, STATE)
        return self._states[:, self._observed].copy()

    def step(self, actions: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`. Episodes of this environment never end by themselves."""
        self._states[:, -self._model.nu :] = actions
        before = self._states[:, 0].copy()
        own, *others = self._shares
        if self._threads is None or not others:
            self._simulate(self._data, own)
        else:
            works = [self._threads.submit(self._simulate, *work) for work in zip(self._others, others, strict=False)]
            self._simulate(self._data, own)
            for work in works:
                work.result()
        velocities = (self._states[:, 0] - before) / self._step_s
        rewards = velocities - CONTROL_COST * np.square(actions).sum(axis=1)
        return self._states[:, self._observed].copy(), rewards, np.zeros(len(actions), np.bool_)

    def _simulate(self, data: mujoco.MjData, rows: list[NDArray[np.float64]]) -> None:
        """Step these states, one after the other, in one simulation."""
        model, frames = self._model, self._frames
        write, step, read = mujoco.mj_setState, mujoco.mj_step, mujoco.mj_getState
        for row in rows:
            write(model, data, row, STATE)
            step(model, data, frames)
            read(model, data, row, STATE)

    def use_threads(self, count: int) -> None:
        """See `EnvironmentBatch.use_threads`. A state's step does not depend on the simulation that takes it."""
        self._end_threads()
        self._others = [mujoco.MjData(self._model) for _ in range(count - 1)]
        self._threads = ThreadPoolExecutor(count - 1, "half-cheetah") if count > 1 else None
        self._set_states(self._states)

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        self._set_states(self._states[live])

    def close(self) -> None:
        """Drop the states, end the threads."""
        self._set_states(self._states[:0])
        self._end_threads()

    def _set_states(self, states: NDArray[np.float64]) -> None:
        self._states = states
        self._rows = rows = list(states)
        # Contiguous shares, the caller's first; none is larger than it.
        size = -(-len(rows) // (1 + len(self._others))) or 1
        self._shares = [rows[start : start + size] for start in range(0, len(rows), size)] or [[]]

    def _end_threads(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None


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
