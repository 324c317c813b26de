"""The interface of a batch of environments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from fedpg_common.learning.trajectories import Trajectories

if TYPE_CHECKING:
    from fedpg_common.environments.helpers import HelperPool


class EnvironmentBatch(ABC):
    """Episodes that step together. Episode i is, bit for bit, that of a Gymnasium environment reset with seed i.

    What `reset` and `step` return stays as it is in later steps, and is to be read, not written.
    """

    observation_size: int
    """D, the length of a flattened observation."""
    gymnasium_id: str = ""
    """The id of the environment in Gymnasium's registry whose episodes these are, for who plays or draws one alone."""
    action_space: Discrete[Any] | Box
    """As a policy sees it. A Box's dimension with finite bounds has −1 and 1, to which those are scaled (`actions`)."""

    def use_threads(self, count: int) -> None:  # noqa: B027  # most batches have nothing to do
        """Share the episodes of a batch among up to `count` threads from now on, where that is faster: same bits.

        They are processes where the simulation holds the interpreter's lock. For most environments nothing changes.
        """

    def share_helpers(self, pool: HelperPool) -> None:  # noqa: B027  # few batches have helpers
        """To be called before `use_threads`: take processes that help from `pool`, which other batches take them from.

        Without it, a batch has some of its own. For most environments nothing changes.
        """

    def drawing(self, round_number: int, step: int = 0, *, finite_rewards: bool = True) -> AbstractContextManager[None]:
        """To be held while a batch of episodes is sampled: seeds the global generators where a batch may use them.

        The round and step name the random stream; round 0 is for episodes that belong to no run's round. Without
        `finite_rewards`, a reward that is not finite is not a failure, but the caller's to deal with.
        """
        return nullcontext()

    @abstractmethod
    def reset(self, seeds: NDArray[np.int64]) -> NDArray[Any]:
        """Start `len(seeds)` episodes, any number, and return their first observations (n, D)."""

    @abstractmethod
    def step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_]]:
        """Step the live episodes, in order.

        `actions` is (n,) int64 counted from 0 for a Discrete space, (n, A) float32 for a Box. Returns observations
        (n, D), rewards (n,) and which episodes have ended (n,): terminated, or truncated by the environment itself.
        An ended episode must be dropped with `keep` before the next step.
        """

    @abstractmethod
    def keep(self, live: NDArray[np.bool_]) -> None:
        """Drop the episodes where `live` (n,) is false; the others keep their order."""

    def rollout(
        self, actor: object, horizon: int, seeds: NDArray[np.int64], rng: np.random.Generator | None
    ) -> Trajectories | None:
        """Whole episodes at once, as `rollouts.sample` gives them, if this batch can do that for this actor; else None.

        Actions are drawn from `rng`, or greedy without it.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Release what the environments hold. The batch cannot be used afterwards."""
