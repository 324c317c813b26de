"""Sampling trajectories: a batch of episodes in lock-step, finished ones dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments import EnvironmentBatch


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


def sample(
    environments: EnvironmentBatch,
    choose: Callable[[NDArray[np.float32]], NDArray[Any]],
    horizon: int,
    seeds: NDArray[np.int64],
) -> Trajectories:
    """One episode a seed, each until it ends or has `horizon` steps.

    `choose` maps the live episodes' observations (n, D) to their actions. If it treats rows alone, an episode does
    not depend on which others are in the batch.
    """
    live = np.arange(len(seeds))
    current = environments.reset(seeds).astype(np.float32, copy=False)
    observations, actions, rewards, episodes = [], [], [], []
    for _ in range(horizon):
        observations.append(current)
        actions.append(choose(current))
        following, reward, ended = environments.step(actions[-1])
        rewards.append(reward)
        episodes.append(live)
        if np.count_nonzero(ended):
            survives = ~ended
            (survivors,) = survives.nonzero()
            if not survivors.size:
                break
            environments.keep(survives)
            live, following = live.take(survivors), following.take(survivors, axis=0)
        current = following.astype(np.float32, copy=False)
    return Trajectories(
        observations=np.concatenate(observations),
        actions=np.concatenate(actions),
        rewards=np.concatenate(rewards),
        episodes=np.concatenate(episodes),
        count=len(seeds),
    )
