"""CartPole-v1, a whole batch in a few numpy calls.

At a dozen episodes a numpy call costs what it costs to make it, unless its operands are contiguous and of one shape,
when it is several times cheaper. So the arrays of every batch size are laid out once, constants included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.environments.physics import checked_option, positive_option
from fedpg_common.learning.policies import CategoricalActor
from fedpg_common.learning.trajectories import Trajectories

TIME_STEP_S = 0.02
POSITION_LIMIT = 2.4
ANGLE_LIMIT_RAD = 12 * 2 * math.pi / 360


class CartPoleBatch(EnvironmentBatch):
    """Gymnasium's arithmetic in float64, in its order of operations."""

    def __init__(
        self,
        gravity: float = 9.8,
        masscart: float = 1.0,
        masspole: float = 0.1,
        length: float = 0.5,
        force_mag: float = 10.0,
    ) -> None:
        """A batch without episodes: `reset` starts them. The physics are called as Gymnasium's class calls them.

        Gravity in m/s², masses in kg, `length` in m and half the pole's, `force_mag` in N. Raises UsageError.
        """
        self._physics = _Physics(
            checked_option("gravity", gravity),
            positive_option("masscart", masscart),
            positive_option("masspole", masspole),
            positive_option("length", length),
            checked_option("force_mag", force_mag),
        )
        self.physics = self._physics.for_kernel()
        """As `Mlp.cartpole` takes them, shape (6,)."""
        self.observation_size = 4
        self.action_space = Discrete(2)
        self.threads = 1
        """How many the server's compiled steps may use."""
        self._columns: dict[int, _Columns] = {}
        self._now = self._columns_of(0)

    def use_threads(self, count: int) -> None:
        """See `EnvironmentBatch.use_threads`. It holds for the tools that are made from now on."""
        self.threads = count

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `EnvironmentBatch.reset`."""
        self._now = self._columns_of(len(seeds))
        starts = [np.random.Generator(np.random.PCG64(seed)).uniform(-0.05, 0.05, 4) for seed in seeds.tolist()]
        self._now.by_episode[:] = np.array(starts).reshape(-1, 2, 2)
        return self._now.observe()

    def step(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`. The array of rewards, all 1, is read-only."""
        ended = self._now.step(actions)
        return self._now.observe(), self._now.rewards, ended

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        (columns,) = live.nonzero()
        before = self._now
        self._now = self._columns_of(len(columns))
        before.state.take(columns, axis=1, out=self._now.state, mode="clip")  # the mode that does not buffer `out`

    def rollout(
        self, actor: object, horizon: int, seeds: NDArray[np.int64], rng: np.random.Generator | None
    ) -> Trajectories | None:
        """Compiled for a categorical actor."""
        if not isinstance(actor, CategoricalActor):
            return None
        uniforms = None if rng is None else rng.random(len(seeds) * horizon, np.float32)
        observations, actions, episodes = actor.mlp.cartpole(self.physics, seeds, horizon, uniforms)
        return Trajectories(observations, actions, np.ones(len(actions)), episodes, count=len(seeds))

    def close(self) -> None:
        """Release the arrays."""
        self._columns.clear()

    def _columns_of(self, count: int) -> _Columns:
        if count not in self._columns:
            self._columns[count] = _Columns(count, self._physics)
        return self._columns[count]


@dataclass(frozen=True)
class _Physics:
    """What differs between carts."""

    gravity: float
    cart_mass: float
    pole_mass: float
    half_length: float
    force: float

    @property
    def total_mass(self) -> float:
        """In Gymnasium's order of addition."""
        return self.pole_mass + self.cart_mass

    @property
    def pole_mass_length(self) -> float:
        """As Gymnasium multiplies it."""
        return self.pole_mass * self.half_length

    def for_kernel(self) -> NDArray[np.float64]:
        """As `Mlp.cartpole` takes it, shape (6,)."""
        mass, length = self.pole_mass, self.half_length
        return np.array([self.gravity, mass, self.total_mass, length, self.pole_mass_length, self.force])


class _Columns:
    """The state of `count` episodes, one a column, and what a step needs."""

    def __init__(self, count: int, physics: _Physics) -> None:
        # Rows are position, angle, their velocities, their accelerations: each pair is the derivative of the one
        # before, so that one multiplication and one addition take the Euler step of all four state variables.
        rows = np.zeros((6, count))
        self.state, self._derivatives = rows[:4], rows[2:]
        self._positions, self._angle = rows[:2], rows[1]
        self._x_acc, self._angle_acc = rows[4], rows[5]
        # Until the end of a step its cosine is where x_acc will be, beside angle_dot, so that one call squares both.
        self._cos, self._angle_dot_and_cos = rows[4], rows[3:5]
        # Gymnasium's order: position, its velocity; angle, its velocity.
        self.by_episode = self.state.reshape(2, 2, count).transpose(2, 1, 0)
        self.rewards = np.ones(count)
        self.rewards.flags.writeable = False
        self._count = count

        self._sin = np.empty(count)
        self._first, self._second, self._sizes = np.empty((3, 2, count))
        self._change = np.empty((4, count))
        self._masses = np.repeat([[physics.pole_mass_length], [physics.pole_mass]], count, axis=1)
        self._total_masses = np.full((2, count), physics.total_mass)
        self._pole_mass_length, self._total_mass = self._masses[0], self._total_masses[0]
        self._gravity = np.full(count, physics.gravity)
        self._half_length = np.full(count, physics.half_length)
        self._forces = np.array([-physics.force, physics.force])
        self._four_thirds = np.full(count, 4.0 / 3.0)
        self._time_step = np.full((4, count), TIME_STEP_S)
        self._beyond = np.empty((2, count), np.bool_)
        self._too_far, self._too_steep = self._beyond
        self._limits = np.repeat([[POSITION_LIMIT], [ANGLE_LIMIT_RAD]], count, axis=1)

    def observe(self) -> NDArray[np.float32]:
        """A fresh array of observations (count, 4)."""
        return self.by_episode.astype(np.float32, order="C").reshape(self._count, 4)

    def step(self, actions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Take one Euler step; returns which episodes have ended."""
        force, sin, cos, angle_acc = self._forces[actions], self._sin, self._cos, self._angle_acc
        # Results go to one and the other in turns, since a single number is slow to be overwritten by its own result.
        first, second = self._first, self._second
        a, b = first[0], second[0]
        np.cos(self._angle, cos)
        np.sin(self._angle, sin)
        # pull = (force + pole_mass_length · angle_dot² · sin) / total_mass, and share = pole_mass · cos² / total_mass
        np.square(self._angle_dot_and_cos, first)
        np.multiply(self._masses, first, second)
        np.multiply(b, sin, a)
        np.add(force, a, b)
        np.divide(second, self._total_masses, first)
        pull, share = first
        # angle_acc = (gravity · sin − cos · pull) / (half_length · (4/3 − share))
        np.subtract(self._four_thirds, share, b)
        np.multiply(self._half_length, b, share)
        np.multiply(self._gravity, sin, angle_acc)
        np.multiply(cos, pull, b)
        np.subtract(angle_acc, b, force)
        np.divide(force, share, angle_acc)
        # x_acc = pull − pole_mass_length · angle_acc · cos / total_mass
        np.multiply(self._pole_mass_length, angle_acc, b)
        np.multiply(b, cos, sin)
        np.divide(sin, self._total_mass, b)
        np.subtract(pull, b, self._x_acc)

        np.multiply(self._time_step, self._derivatives, self._change)
        np.add(self.state, self._change, self.state)
        np.absolute(self._positions, self._sizes)
        np.greater(self._sizes, self._limits, self._beyond)
        ended: NDArray[np.bool_] = np.logical_or(self._too_far, self._too_steep)
        return ended
