"""LunarLander-v3: Gymnasium's class, one instance an episode, with a step that does nothing but the simulation."""

from __future__ import annotations

import math
import pickle
from functools import partial
from typing import Any

import numpy as np
from gymnasium.envs.box2d import lunar_lander as gymnasium_lander
from gymnasium.envs.box2d.lunar_lander import (
    FPS,
    LEG_DOWN,
    MAIN_ENGINE_POWER,
    MAIN_ENGINE_Y_LOCATION,
    SCALE,
    SIDE_ENGINE_AWAY,
    SIDE_ENGINE_HEIGHT,
    SIDE_ENGINE_POWER,
    VIEWPORT_H,
    VIEWPORT_W,
)
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.environments.flights import Flights, Simulation, merged
from fedpg_common.environments.helpers import HelperPool, Helpers
from fedpg_common.environments.physics import checked_option
from fedpg_common.errors import UsageError
from fedpg_common.learning.policies import CategoricalActor
from fedpg_common.learning.trajectories import Trajectories

HALF_WIDTH = VIEWPORT_W / SCALE / 2
HALF_HEIGHT = VIEWPORT_H / SCALE / 2
SIDE_ENGINE_DROP = 17
"""Gymnasium's own number for how far below the lander's centre the side engines push, in x."""
DRAWS_AT_ONCE = 256

State = tuple[float, float, float, float, float, float, float, float]


class LunarLanderBatch(EnvironmentBatch):
    """As many landers as the largest batch so far."""

    def __init__(
        self,
        gravity: float = -10.0,
        enable_wind: bool = False,
        wind_power: float = 15.0,
        turbulence_power: float = 1.5,
    ) -> None:
        """Make the first lander. The options are those of Gymnasium's class. Raises UsageError."""
        if not -12.0 < checked_option("gravity", gravity) < 0.0:
            raise UsageError(f"gravity must be between -12 and 0, not {gravity}")
        if not isinstance(enable_wind, bool):
            raise UsageError(f"enable_wind must be true or false, not {enable_wind!r}")
        for name, value in (("wind_power", wind_power), ("turbulence_power", turbulence_power)):
            checked_option(name, value)
        options = gravity, enable_wind, wind_power, turbulence_power
        self._make = partial(_Lander, None, False, *options)
        self._make_another = pickle.dumps(partial(LunarLanderBatch, *options))
        """For a process that helps."""
        self._pool = HelperPool()
        self._helpers: Helpers | None = None
        self._landers = [self._make()]
        self._live: list[_Lander] = []
        self._used = 0
        """Landers of the batch that is played as a whole."""
        self.action_space = Discrete(4)
        self.observation_size = 8

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `EnvironmentBatch.reset`."""
        while len(self._landers) < len(seeds):
            self._landers.append(self._make())
        self._live = self._landers[: len(seeds)]
        states = [lander.reset(seed=seed)[0] for lander, seed in zip(self._live, seeds.tolist(), strict=True)]
        return np.array(states, np.float32).reshape(-1, self.observation_size)

    def step(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`."""
        steps = [lander.step(action) for lander, action in zip(self._live, actions.tolist(), strict=True)]
        states, rewards, ended, _, _ = zip(*steps, strict=True)
        return np.array(states, np.float32), np.array(rewards, np.float64), np.array(ended, np.bool_)

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        self._live = [lander for lander, stays in zip(self._live, live.tolist(), strict=True) if stays]

    def share_helpers(self, pool: HelperPool) -> None:
        """See `EnvironmentBatch.share_helpers`."""
        self._end_help()
        self._pool = pool

    def use_threads(self, count: int) -> None:
        """See `EnvironmentBatch.use_threads`. Box2D holds the interpreter's lock, so that they are processes."""
        self._end_help()
        if count > 1:
            self._helpers = self._pool.borrow(count - 1)

    def rollout(
        self, actor: object, horizon: int, seeds: NDArray[np.int64], rng: np.random.Generator | None
    ) -> Trajectories | None:
        """Shared with other processes, once they are there. Raises EnvironmentFailedError if one of them fails."""
        if not isinstance(actor, CategoricalActor):
            return None
        if self._helpers is not None:
            shared = self._helpers.rollout("LunarLander-v3", self, self._make_another, actor, horizon, seeds, rng)
            if shared is not None:
                return shared
        flights = self.start(seeds, 0, len(seeds))
        for _ in range(horizon):
            rows = flights.observe()
            flights.step(actor.greedy(rows) if rng is None else actor.sample(rows, rng))
            if not flights.episodes:
                break
        return merged([flights.part()], len(seeds))

    def start(self, seeds: NDArray[np.int64], first: int, after: int) -> Flights:
        """The batch's episodes from number `first` to before `after`, for who plays these."""
        self._used = 0
        landers, states = [], []
        for seed in seeds[first:after].tolist():
            lander, state = self.start_one(seed)
            landers.append(lander)
            states.append(state)
        return Flights(self.observation_size, landers, states, first)

    def start_one(self, seed: int) -> tuple[Simulation, State]:
        """One more episode, and its first observation."""
        if self._used == len(self._landers):
            self._landers.append(self._make())
        lander = self._landers[self._used]
        self._used += 1
        state: State = lander.reset(seed=seed)[0]
        return lander, state

    def _end_help(self) -> None:
        if self._helpers is not None:
            self._pool.give_back(self._helpers)
            self._helpers = None

    def close(self) -> None:
        """Destroy the landers' worlds."""
        self._end_help()
        for lander in self._landers:
            lander.close()  # type: ignore[no-untyped-call]
        self._landers, self._live = [], []


class _Lander(gymnasium_lander.LunarLander):
    """Gymnasium's reset; its step for discrete actions without rendering, in plain floats.

    The same Box2D calls with the same arguments, and the same random numbers, though drawn many at once.
    """

    lander: Any

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._draws: list[float] = []
        return super().reset(seed=seed, options=options)

    def step(self, action: int) -> tuple[State, float, bool, bool, dict[str, Any]]:
        lander = self.lander
        if self.enable_wind and not (self.legs[0].ground_contact or self.legs[1].ground_contact):
            self._blow()
        draws = self._draws
        if not draws:
            draws.extend(self.np_random.uniform(-1.0, 1.0, DRAWS_AT_ONCE).tolist())
            draws.reverse()
        first, second = draws.pop() / SCALE, draws.pop() / SCALE
        if action == 2:
            self._fire_main_engine(first, second)
        elif action:
            self._fire_side_engine(action - 2, first, second)
        self.world.Step(1.0 / FPS, 6 * 30, 2 * 30)

        position, velocity = lander.position, lander.linearVelocity
        left, right = self.legs
        x = (position.x - HALF_WIDTH) / HALF_WIDTH
        y = (position.y - (self.helipad_y + LEG_DOWN / SCALE)) / HALF_HEIGHT
        x_dot = velocity.x * HALF_WIDTH / FPS
        y_dot = velocity.y * HALF_HEIGHT / FPS
        angle = lander.angle
        left_contact = 1.0 if left.ground_contact else 0.0
        right_contact = 1.0 if right.ground_contact else 0.0
        state = (x, y, x_dot, y_dot, angle, 20.0 * lander.angularVelocity / FPS, left_contact, right_contact)

        shaping = (
            -100 * math.sqrt(x * x + y * y)
            - 100 * math.sqrt(x_dot * x_dot + y_dot * y_dot)
            - 100 * abs(angle)
            + 10 * left_contact
            + 10 * right_contact
        )
        reward = 0.0 if self.prev_shaping is None else shaping - self.prev_shaping
        self.prev_shaping = shaping
        if action == 2:
            reward -= 0.30
        elif action:
            reward -= 0.03
        if not lander.awake:
            return state, 100.0, True, False, {}
        if self.game_over or abs(x) >= 1.0:
            return state, -100.0, True, False, {}
        return state, reward, False, False, {}

    def _blow(self) -> None:
        self.lander.ApplyForceToCenter((_gust(int(self.wind_idx)) * self.wind_power, 0.0), True)
        self.lander.ApplyTorque(_gust(int(self.torque_idx)) * self.turbulence_power, True)
        self.wind_idx += 1
        self.torque_idx += 1

    def _fire_main_engine(self, first: float, second: float) -> None:
        lander = self.lander
        angle, position = lander.angle, lander.position
        sin, cos = math.sin(angle), math.cos(angle)
        reach = MAIN_ENGINE_Y_LOCATION / SCALE + 2 * first
        x = sin * reach + -cos * second
        y = -cos * reach - sin * second
        impulse = (-x * MAIN_ENGINE_POWER, -y * MAIN_ENGINE_POWER)
        lander.ApplyLinearImpulse(impulse, (position.x + x, position.y + y), True)

    def _fire_side_engine(self, direction: int, first: float, second: float) -> None:
        lander = self.lander
        angle, position = lander.angle, lander.position
        sin, cos = math.sin(angle), math.cos(angle)
        reach = 3 * second + direction * SIDE_ENGINE_AWAY / SCALE
        x = sin * first + -cos * reach
        y = -cos * first - sin * reach
        point = (position.x + x - sin * SIDE_ENGINE_DROP / SCALE, position.y + y + cos * SIDE_ENGINE_HEIGHT / SCALE)
        lander.ApplyLinearImpulse((-x * SIDE_ENGINE_POWER, -y * SIDE_ENGINE_POWER), point, True)


def _gust(index: int) -> float:
    """Gymnasium's wind and turbulence, from -1 to 1."""
    return math.tanh(math.sin(0.02 * index) + math.sin(math.pi * 0.01 * index))
