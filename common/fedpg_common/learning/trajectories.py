"""What a batch of episodes was."""

from __future__ import annotations

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
