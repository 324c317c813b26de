"""Attacks on the rewards."""

from __future__ import annotations

import dataclasses

import numpy as np
from fedpg_common.trajectories import Trajectories

from fedpg_client.attacks.behaviour import Behaviour


class RewardFlipping(Behaviour):
    """Negates every reward."""

    def tamper_trajectories(self, trajectories: Trajectories, rng: np.random.Generator) -> Trajectories:
        """See the class."""
        return dataclasses.replace(trajectories, rewards=-trajectories.rewards)


class RandomReward(Behaviour):
    """Shuffles the rewards within each trajectory. Where rewards are constant, as CartPole's are, that is no attack."""

    def tamper_trajectories(self, trajectories: Trajectories, rng: np.random.Generator) -> Trajectories:
        """See the class."""
        episodes = trajectories.episodes
        # Sorted by episode twice: once in order of time, once in random order within each.
        in_time = np.argsort(episodes, kind="stable")
        shuffled = np.lexsort((rng.random(len(episodes)), episodes))
        rewards = np.empty_like(trajectories.rewards)
        rewards[in_time] = trajectories.rewards[shuffled]
        return dataclasses.replace(trajectories, rewards=rewards)
