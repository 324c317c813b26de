"""A batch of somebody's own: whatever it does wrong becomes one sentence, as with single environments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from fedpg_common.checks import is_whole
from fedpg_common.environments.actions import ActionScale
from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.environments.global_random import GlobalRandom
from fedpg_common.environments.guard import NUMBER_MAX, Guard, name
from fedpg_common.errors import UsageError
from fedpg_common.learning.trajectories import Trajectories

if TYPE_CHECKING:
    from fedpg_common.environments.helpers import HelperPool

T = TypeVar("T")


class GuardedBatch(EnvironmentBatch):
    """Judges what another batch answers, and seeds the global generators in case it draws from them.

    Actions of a Box are scaled to its bounds, as for any other environment.
    """

    def __init__(
        self,
        make: Callable[[], EnvironmentBatch],
        guard: Guard | None = None,
        global_random: GlobalRandom | None = None,
    ) -> None:
        """Make the batch. Raises UsageError if it does not say what it observes and does, and what `make` raises."""
        self._guard = guard or Guard("unnamed", "unnamed")
        self._global_random = global_random or GlobalRandom()
        with self._global_random.during_making(0):
            self._batch = make()
        size, space = getattr(self._batch, "observation_size", None), getattr(self._batch, "action_space", None)
        if not (is_whole(size) and size >= 1):
            raise UsageError(f"observation_size must be a whole number from 1, not {name(size)}")
        if not isinstance(space, Discrete | Box):
            raise UsageError(f"action_space must be a Discrete or a Box of Gymnasium's, not {name(space)}")
        self._scale = ActionScale(space)
        self.observation_size = size
        self.action_space = self._scale.policy_space
        self._live = 0

    @contextmanager
    def drawing(self, round_number: int, step: int = 0, *, finite_rewards: bool = True) -> Iterator[None]:
        """See `EnvironmentBatch.drawing`."""
        self._guard.wants_finite_rewards = finite_rewards
        try:
            with (
                self._global_random.during_episodes(round_number, step),
                self._batch.drawing(round_number, step, finite_rewards=finite_rewards),
            ):
                yield
        finally:
            self._guard.wants_finite_rewards = True

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[Any]:
        """See `EnvironmentBatch.reset`."""
        self._live = len(seeds)
        return self._observations("reset", self._asked("reset", lambda: self._batch.reset(seeds)))

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_]]:
        """See `EnvironmentBatch.step`."""
        moves = self._scale.to_environment(actions)
        answer = self._asked("step", lambda: self._batch.step(moves))
        if not (isinstance(answer, tuple) and len(answer) == 3):
            raise self._guard.wrong("step", f"it must return observations, rewards and ends, not {name(answer)}")
        observations, rewards, ended = answer
        if not isinstance(ended, np.ndarray) or ended.shape != (self._live,) or ended.dtype != np.bool_:
            raise self._guard.wrong("step", f"ends must be an array of {self._live} truth values, not {name(ended)}")
        return self._observations("step", observations), self._rewards("step", rewards, self._live), ended

    def share_helpers(self, pool: HelperPool) -> None:
        """See `EnvironmentBatch.share_helpers`."""
        self._asked("share_helpers", lambda: self._batch.share_helpers(pool))

    def use_threads(self, count: int) -> None:
        """See `EnvironmentBatch.use_threads`."""
        self._asked("use_threads", lambda: self._batch.use_threads(count))

    def keep(self, live: NDArray[np.bool_]) -> None:
        """See `EnvironmentBatch.keep`."""
        self._asked("keep", lambda: self._batch.keep(live))
        self._live = int(np.count_nonzero(live))

    def rollout(
        self, actor: object, horizon: int, seeds: NDArray[np.int64], rng: np.random.Generator | None
    ) -> Trajectories | None:
        """See `EnvironmentBatch.rollout`."""
        whole = self._asked("rollout", lambda: self._batch.rollout(actor, horizon, seeds, rng))
        if whole is not None and not isinstance(whole, Trajectories):
            raise self._guard.wrong("rollout", f"it must return Trajectories or None, not {name(whole)}")
        if whole is not None:
            self._guard.check_finite("rollout", whole.observations)
            self._rewards("rollout", whole.rewards, len(whole.actions))
        return whole

    def close(self) -> None:
        """See `EnvironmentBatch.close`."""
        try:
            self._batch.close()
        except BaseException as error:
            self._guard.tell_of_close(error)

    def _asked(self, method: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except BaseException as error:
            raise self._guard.failure(method, error) from error

    def _observations(self, method: str, value: object) -> NDArray[Any]:
        observations = self._guard.observation(method, value, (self._live, self.observation_size))
        self._guard.check_finite(method, observations)
        return observations

    def _rewards(self, method: str, value: object, count: int) -> NDArray[np.float64]:
        if not isinstance(value, np.ndarray) or value.shape != (count,) or value.dtype.kind not in "fiu":
            raise self._guard.wrong(method, f"rewards must be an array of {count} numbers, not {name(value)}")
        rewards = value.astype(np.float64, copy=False)
        if not (np.abs(rewards) <= NUMBER_MAX).all():
            self._guard.reward(float(rewards[~(np.abs(rewards) <= NUMBER_MAX)][0]))  # a failure or a warning
        return rewards
