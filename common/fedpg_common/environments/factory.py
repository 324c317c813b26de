"""Which batch of environments runs a task."""

from __future__ import annotations

import gymnasium

from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.environments.generic import GymnasiumBatch
from fedpg_common.errors import UsageError
from fedpg_common.tasks import Task


def make_environments(task: Task) -> EnvironmentBatch:
    """The environments of a task: an own fast batch where there is one, else Gymnasium's class, one an episode.

    A task with options of its own always gets the latter. Episodes are not cut at the task's horizon: rollouts do
    that. Raises UsageError with one sentence if Gymnasium does not know the environment or cannot make it (a missing
    dependency, a wrong option), or its spaces are not supported.
    """
    try:
        return _make(task)
    except UsageError as error:
        raise UsageError(f"task {task.name}: {task.environment} cannot be used: {error}") from error
    except Exception as error:  # Environments are others' code, and refuse options with whatever they like.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"task {task.name}: {task.environment} cannot be made: {reason}") from error


def _make(task: Task) -> EnvironmentBatch:
    # Imported when needed: MuJoCo and Box2D are heavy, and a machine that runs another task may lack them.
    if not task.environment_options:
        if task.environment == "CartPole-v1":
            from fedpg_common.environments.cartpole import CartPoleBatch

            return CartPoleBatch()
        if task.environment == "LunarLander-v3":
            from fedpg_common.environments.lunar_lander import LunarLanderBatch

            return LunarLanderBatch()
        if task.environment == "HalfCheetah-v5":
            from fedpg_common.environments.half_cheetah import HalfCheetahBatch

            return HalfCheetahBatch()
    limit = max(task.horizon, task.evaluation_horizon)
    options = dict(task.environment_options)
    return GymnasiumBatch(
        lambda: gymnasium.make(task.environment, max_episode_steps=limit, disable_env_checker=True, **options)
    )
