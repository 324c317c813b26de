"""Attacks on the rewards."""

from __future__ import annotations

import dataclasses

import numpy as np
from fedpg_common.learning.trajectories import Trajectories

from fedpg_client.attacks.base import Attack, Context


class RewardFlipping(Attack):
    """Negates every reward."""

    def tamper_trajectories(self, trajectories: Trajectories, context: Context) -> Trajectories:
        """The trajectories with each reward negated."""
        return dataclasses.replace(trajectories, rewards=-trajectories.rewards)


class RandomReward(Attack):
    """Shuffles the rewards within each trajectory. Where rewards are constant, as CartPole's are, that is no attack."""

    def tamper_trajectories(self, trajectories: Trajectories, context: Context) -> Trajectories:
        """The trajectories with each one's rewards in random order."""
        episodes = trajectories.episodes
        # Sorted by episode twice: once in order of time, once in random order within each.
        in_time = np.argsort(episodes, kind="stable")
        shuffled = np.lexsort((context.rng.random(len(episodes)), episodes))
        rewards = np.empty_like(trajectories.rewards)
        rewards[in_time] = trajectories.rewards[shuffled]
        return dataclasses.replace(trajectories, rewards=rewards)
