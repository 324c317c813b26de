"""Sampling trajectories: a batch of episodes in lock-step, finished ones dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpg_common.environments import EnvironmentBatch
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy
from fedpg_common.learning.trajectories import Trajectories


def rollout(
    environments: EnvironmentBatch,
    policy: Policy,
    theta: Vector,
    horizon: int,
    seeds: NDArray[np.int64],
    rng: np.random.Generator | None,
) -> Trajectories:
    """Trajectories of π_θ, one per seed: actions drawn from `rng`, or greedy without it.

    Compiled where the environments can; the same bits as `sample` with the policy's actor.
    """
    actor = policy.actor(theta)
    compiled = environments.rollout(actor, horizon, seeds, rng)
    if compiled is not None:
        return compiled
    if rng is None:
        return sample(environments, actor.greedy, horizon, seeds)
    return sample(environments, lambda observations: actor.sample(observations, rng), horizon, seeds)


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
