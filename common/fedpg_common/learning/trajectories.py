"""What a batch of episodes was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Trajectories:
    """A batch of complete trajectories, flat and time-major.

    First come the first steps of all episodes, then the second steps of those that live on, and so forth; the rows of
    one step are in the order of the episodes.
    """

    observations: NDArray[np.float32]
    """(n, D): what the policy saw before each action."""
    actions: NDArray[Any]
    """(n,) int64 or (n, A) float32."""
    rewards: NDArray[np.float64]
    """(n,): what each action earned."""
    episodes: NDArray[np.int64]
    """(n,): the episode, from 0, that each step belongs to."""
    count: int
    """Number of episodes."""

    @property
    def steps(self) -> int:
        """n, the number of environment steps in all episodes."""
        return len(self.rewards)

    def lengths(self) -> NDArray[np.int64]:
        """Steps of each episode, shape (count,)."""
        return np.bincount(self.episodes, minlength=self.count)

    def returns(self) -> NDArray[np.float64]:
        """Undiscounted sum of each episode's rewards, shape (count,)."""
        return np.asarray(np.bincount(self.episodes, self.rewards, self.count), dtype=np.float64)


def joined(batches: Sequence[Trajectories]) -> Trajectories:
    """The trajectories of all batches as one: those of the first come first. There is one batch at least."""
    if len(batches) == 1:
        return batches[0]
    firsts = np.cumsum([0, *(batch.count for batch in batches)])
    episodes = np.concatenate([batch.episodes + first for batch, first in zip(batches, firsts, strict=False)])
    times = np.concatenate([_times(batch) for batch in batches])
    order = np.lexsort((episodes, times))
    return Trajectories(
        observations=np.concatenate([batch.observations for batch in batches])[order],
        actions=np.concatenate([batch.actions for batch in batches])[order],
        rewards=np.concatenate([batch.rewards for batch in batches])[order],
        episodes=episodes[order],
        count=int(firsts[-1]),
    )


def _times(batch: Trajectories) -> NDArray[np.int64]:
    """The step, from 0, within its episode that each row is, shape (n,)."""
    lengths = batch.lengths()
    longest = int(lengths.max(initial=0))
    ended = np.cumsum(np.bincount(lengths, minlength=longest + 1))
    alive = len(lengths) - ended[:longest]
    return np.repeat(np.arange(longest), alive)
