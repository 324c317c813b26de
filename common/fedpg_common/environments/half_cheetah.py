"""HalfCheetah-v5: one MuJoCo simulation a thread, in which the states of its episodes take turns.

MuJoCo releases the interpreter's lock while it steps, so that threads share a batch's episodes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments.mujoco_batch import MujocoBatch, load

CONTROL_COST = 0.1


class HalfCheetahBatch(MujocoBatch):
    """Gymnasium's model, steps and reward."""

    noise_scale = 0.1

    def __init__(self, gravity: float = -9.81, mass_scale: float = 1.0) -> None:
        """Load Gymnasium's model; `gravity` is along z, in m/s², and `mass_scale` multiplies all masses."""
        self._others: list[mujoco.MjData] = []
        """Of the threads beside the caller's."""
        self._threads: ThreadPoolExecutor | None = None
        environment = load("HalfCheetah-v5", gravity, mass_scale)
        self.action_space = environment.action_space
        self._step_s = environment.dt
        super().__init__(environment, hidden=1)  # Gymnasium does not show the position along the track

    def _velocity_noise(self, rng: np.random.Generator) -> NDArray[np.float64]:
        noise: NDArray[np.float64] = self.noise_scale * rng.standard_normal(self._model.nv)
        return noise

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
        return self._observations(), rewards, np.zeros(len(actions), np.bool_)

    def use_threads(self, count: int) -> None:
        """See `EnvironmentBatch.use_threads`. A state's step does not depend on the simulation that takes it."""
        self._end_threads()
        self._others = [mujoco.MjData(self._model) for _ in range(count - 1)]
        self._threads = ThreadPoolExecutor(count - 1, "half-cheetah") if count > 1 else None
        self._set_states(self._states)

    def close(self) -> None:
        """Drop the states, end the threads."""
        super().close()
        self._end_threads()

    def _set_states(self, states: NDArray[np.float64]) -> None:
        super()._set_states(states)
        rows = self._rows
        # Contiguous shares, the caller's first; none is larger than it.
        size = -(-len(rows) // (1 + len(self._others))) or 1
        self._shares = [rows[start : start + size] for start in range(0, len(rows), size)] or [[]]

    def _end_threads(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
