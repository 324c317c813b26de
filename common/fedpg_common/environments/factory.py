"""Which batch of environments runs a task."""

from __future__ import annotations

import os
from typing import Any

import gymnasium

from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.environments.generic import GymnasiumBatch
from fedpg_common.environments.global_random import GlobalRandom
from fedpg_common.environments.guard import Guard, place, raise_if_ours, reason
from fedpg_common.environments.modules import import_module_of
from fedpg_common.errors import UsageError
from fedpg_common.tasks import Task, show

OWN_BATCHES = ("CartPole-v1", "LunarLander-v3", "HalfCheetah-v5")
"""Environments with a fast batch of our own."""


def make_environments(task: Task, global_random: GlobalRandom | None = None) -> EnvironmentBatch:
    """The environments of a task: a fast batch of our own where there is one, else Gymnasium's class per episode.

    A task with environment options always gets the latter, and `global_random` says whose they are. Episodes are not
    cut at the task's horizon: rollouts do that. Raises UsageError with one sentence if Gymnasium does not know the
    environment or cannot make it (a missing dependency, a wrong option), or its spaces are not supported.
    """
    try:
        return _make(task, global_random)
    except UsageError as error:
        raise UsageError(f"task {task.name}: {task.environment} cannot be used: {error}") from error
    except BaseException as error:  # Environments are others' code, and refuse options with whatever they like.
        raise_if_ours(error)
        why = f"{reason(error)}{place(error)}{_drawing_advice(error)}"
        raise UsageError(f"task {task.name}: {task.environment} cannot be made: {why}") from error


def _drawing_advice(error: BaseException) -> str:
    """MuJoCo loads what it would draw with when it is imported, and fails in words of its own if that is not there."""
    backend, traceback = os.environ.get("MUJOCO_GL"), error.__traceback__
    modules = set()
    while traceback is not None:
        modules.add(str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0])
        traceback = traceback.tb_next
    if not backend or not modules & {"mujoco", "OpenGL"}:
        return ""
    return f": MUJOCO_GL={show(backend)} cannot be used on this machine: unset it, or set MUJOCO_GL=disabled"


def has_own_batch(task: Task) -> bool:
    """Whether a fast batch of our own runs the task, which draws from nothing but its episodes' seeds."""
    return task.environment in OWN_BATCHES and not task.environment_options


def make_one(task: Task, name: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """One environment of a task from Gymnasium's registry, under the `name` that `import_module_of` gives."""
    ours = {"max_episode_steps": max(task.horizon, task.evaluation_horizon), "disable_env_checker": True}
    return gymnasium.make(name, **{**ours, **task.environment_options, **options})


def _make(task: Task, global_random: GlobalRandom | None) -> EnvironmentBatch:
    # Imported when needed: MuJoCo and Box2D are heavy, and a machine that runs another task may lack them.
    if has_own_batch(task):
        if task.environment == "CartPole-v1":
            from fedpg_common.environments.cartpole import CartPoleBatch

            return CartPoleBatch()
        if task.environment == "LunarLander-v3":
            from fedpg_common.environments.lunar_lander import LunarLanderBatch

            return LunarLanderBatch()
        from fedpg_common.environments.half_cheetah import HalfCheetahBatch

        return HalfCheetahBatch()
    name = import_module_of(task)
    return GymnasiumBatch(lambda: make_one(task, name), Guard.of(task), global_random)
