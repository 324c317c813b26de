"""Which batch of environments runs a task."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from typing import Any

import gymnasium

from fedpg_common.checks import show, unknown
from fedpg_common.choices import Choice
from fedpg_common.environments.base import EnvironmentBatch
from fedpg_common.environments.generic import GymnasiumBatch
from fedpg_common.environments.global_random import GlobalRandom
from fedpg_common.environments.guard import Guard
from fedpg_common.environments.guarded_batch import GuardedBatch
from fedpg_common.environments.modules import import_module, import_module_of, named_in_module
from fedpg_common.environments.physics import set_physics, settable_options
from fedpg_common.environments.rewards import RewardBatch
from fedpg_common.errors import UsageError
from fedpg_common.hidden_modules import hidden_by
from fedpg_common.others_code import place, raise_if_ours, reason
from fedpg_common.shipped import ENVIRONMENTS, WRAPPERS
from fedpg_common.tasks import Reward, Task, module_of


def make_environments(task: Task, global_random: GlobalRandom | None = None) -> EnvironmentBatch:
    """The environments of a task: a fast batch where there is one, else Gymnasium's class per episode.

    A task with options that the fast batch does not take gets the latter, and `global_random` says whose they are.
    Episodes are not cut at the task's horizon: rollouts do that. Raises UsageError with one sentence if Gymnasium does
    not know the environment or cannot make it (a missing dependency, a wrong option), or its spaces are not supported.
    """
    try:
        batch = _make(task, global_random)
        return batch if task.reward == Reward() else RewardBatch(batch, task.reward)
    except UsageError as error:
        why = str(error).removeprefix(f"environment {task.environment}: ")
        raise UsageError(f"task {task.name}: {task.environment} cannot be used: {why}") from error
    except BaseException as error:  # Environments are others' code, and refuse options with whatever they like.
        raise_if_ours(error)
        unknown_option = _unknown_option(task, error)
        if unknown_option is not None:
            raise UsageError(f"task {task.name}: {task.environment} cannot be made: {unknown_option}") from error
        why = f"{reason(error)}{place(error)}{_drawing_advice(error)}"
        if isinstance(error, gymnasium.error.UnregisteredEnv) and (module := module_of(task.environment)):
            why = f"{why.rstrip('.')}{hidden_by(module)}"
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


def _unknown_option(task: Task, error: BaseException) -> UsageError | None:
    """What to say of an option that the environment's class refused as a keyword that it does not know, if it did."""
    refused = re.search(r"unexpected keyword argument '(\w+)'", str(error)) if isinstance(error, TypeError) else None
    if refused is None or refused[1] not in task.environment_options:
        return None
    known = (*settable_options(task.environment), *_options_of_class(task.environment))
    return unknown("option", refused[1], dict.fromkeys(known)) if known else None


def _options_of_class(environment: str) -> list[str]:
    """What the class behind a name in Gymnasium's registry takes; nothing where that cannot be told."""
    spec = gymnasium.registry.get(environment.rpartition(":")[2])
    entry = getattr(spec, "entry_point", None)
    try:
        made_by = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
        parameters = inspect.signature(made_by).parameters.values() if callable(made_by) else ()
    except (AttributeError, ImportError, TypeError, ValueError):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [one.name for one in parameters if one.kind in named and one.name != "render_mode"]


def has_own_batch(task: Task) -> bool:
    """Whether a fast batch of our own runs the task, which draws from nothing but its episodes' seeds.

    MuJoCo and Box2D, on which a batch may depend, are imported to see that.
    """
    return task.environment in ENVIRONMENTS.shipped and not task.wrappers and _takes(task)


def make_one(task: Task, name: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """One environment of a task from Gymnasium's registry, under the `name` that `import_module_of` gives."""
    ours = {"max_episode_steps": max(task.horizon, task.evaluation_horizon), "disable_env_checker": True}
    settable = settable_options(name)
    physics = {option: value for option, value in task.environment_options.items() if option in settable}
    arguments = {option: value for option, value in task.environment_options.items() if option not in settable}
    made = gymnasium.make(name, **{**ours, **arguments, **options})
    if physics:
        set_physics(made, physics)
    for choice in map(WRAPPERS.parse, task.wrappers):
        import_module(task, choice.name.partition(":")[0])
        made = WRAPPERS.build(choice, made)
        if not isinstance(made, gymnasium.Env):
            raise UsageError(f"wrapper {choice.name}: it made {show(made)}, which is not an environment of Gymnasium's")
    return made


def gymnasium_id(task: Task) -> str:
    """The id in Gymnasium's registry of the task's environment, once its module is imported.

    For a batch of somebody's own it is the one that the batch names. Raises UsageError if it names none.
    """
    name = import_module_of(task)
    batch = _batch_in_module(task)
    if batch is None:
        return name
    if not batch.gymnasium_id:
        raise UsageError(f"{task.environment} is a batch that names no gymnasium_id, so it cannot be played alone")
    return batch.gymnasium_id


def _make(task: Task, global_random: GlobalRandom | None) -> EnvironmentBatch:
    # Imported when needed: MuJoCo and Box2D are heavy, and a machine that runs another task may lack them.
    if has_own_batch(task):
        _shipped_batch(task.environment)
        return _build(task)
    name = import_module_of(task)
    if _batch_in_module(task) is not None:
        if task.wrappers:
            name = gymnasium_id(task)  # whose class plays the same episodes
            return GymnasiumBatch(lambda: make_one(task, name), Guard.of(task), global_random)
        return GuardedBatch(lambda: _build(task), Guard.of(task), global_random)
    return GymnasiumBatch(lambda: make_one(task, name), Guard.of(task), global_random)


def _build(task: Task) -> EnvironmentBatch:
    batch: EnvironmentBatch = ENVIRONMENTS.build(Choice(task.environment, task.environment_options))
    return batch


def _batch_in_module(task: Task) -> type[EnvironmentBatch] | None:
    """The class that MODULE:NAME names, if it is a batch; its module is imported already."""
    found = named_in_module(task.environment) if module_of(task.environment) else None
    return found if isinstance(found, type) and issubclass(found, EnvironmentBatch) else None


def _takes(task: Task) -> bool:
    """Whether the shipped batch has all the settings that the task's options ask for."""
    if not task.environment_options:
        return True
    settings = inspect.signature(_shipped_batch(task.environment)).parameters
    return set(task.environment_options) <= set(settings)


def _shipped_batch(environment: str) -> Callable[..., EnvironmentBatch]:
    """The class of a shipped batch. Raises what its import raises: a library may be missing."""
    try:
        return ENVIRONMENTS.find(environment)
    except UsageError as error:
        raise error.__cause__ or error from None
