"""Federations whose agents draw worlds of their own, and a module of wrappers."""

from __future__ import annotations

from typing import Any

from fedpg_common.descriptions import describe
from fedpg_common.federation import Federation

RANGES: dict[str, Any] = {"gravity": [8, 12], "length": [0.3, 0.7], "reward": {"noise": [0.0, 0.2]}}


WRAPPERS = '''
import gymnasium
import numpy as np


class Blind(gymnasium.ObservationWrapper):
    """A sensor that shows less by a factor."""

    def __init__(self, env, factor=0.5):
        super().__init__(env)
        self._factor = factor

    def observation(self, observation):
        return (observation * self._factor).astype(np.float32)


class Wider(gymnasium.ObservationWrapper):
    """Two numbers more than the policy knows."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (6,), np.float32)

    def observation(self, observation):
        return np.append(observation, [0.0, 0.0]).astype(np.float32)


class Pushed(gymnasium.ActionWrapper):
    """Three actions, where the policy has two."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = gymnasium.spaces.Discrete(3)

    def action(self, action):
        return min(action, 1)


def nothing(env):
    return None
'''


def drawn(seed: int = 0, agents: int = 5, **fields: Any) -> Federation:
    return describe("CartPole-v1", agents=agents, seed=seed, heterogeneity={**RANGES, **fields})
