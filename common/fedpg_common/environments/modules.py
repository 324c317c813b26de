"""Environments that a module of the user's own registers: `my_envs:Maze-v0` is Maze-v0, once my_envs is imported."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import threading
from pathlib import Path

from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.others_code import place, raise_if_ours, reason
from fedpg_common.shipped import WRAPPERS
from fedpg_common.tasks import Task, module_of

_one_import = threading.RLock()
_loaded_from: dict[str, str] = {}
"""The folder from which a top-level module was imported here, where that was not Python's path."""


def import_module_of(task: Task) -> str:
    """Import the module that a task's environment names, if it does; returns the environment's id without it.

    It is looked for beside the task file, then on Python's path, then in the working folder. Raises UsageError if it
    is not there, or cannot be imported for whatever reason.
    """
    module = module_of(task.environment)
    if not module:
        return task.environment
    name = task.environment.partition(":")[2]
    if ":" in name or not all(part.isidentifier() for part in module.split(".")):
        raise UsageError("an environment from a module is named MODULE:ID, with one colon, as in my_envs:Maze-v0")
    import_module(task, module)
    return name


def import_module(task: Task, module: str) -> None:
    """Import a module that a task names, from where `import_module_of` looks for it. Raises UsageError."""
    with _one_import:
        _import(task, module)


def check_wrappers_of_worlds(federation: Federation) -> None:
    """Find every wrapper that an agent's world names, before a run waits for an agent that cannot.

    Raises UsageError that names the first agent whose wrapper is not to be had here.
    """
    found: set[str] = set()
    for agent, world in sorted(federation.environments.items()):
        for choice in map(WRAPPERS.parse, world.wrappers or ()):
            if choice.name in found:
                continue
            try:
                import_module(federation.task_of(agent), choice.name.partition(":")[0])
                WRAPPERS.find(choice.name)
            except UsageError as error:
                why = str(error).removeprefix(f"wrapper {choice.name}: ")
                raise UsageError(f"the world of agent {agent}: wrapper {choice.name}: {why}") from error
            found.add(choice.name)


def _import(task: Task, module: str) -> None:
    top = module.partition(".")[0]
    folder = _folder_of(top, task.module_folder)
    if top in _loaded_from and _loaded_from[top] != folder:  # another task's module of the same name
        _forget(top)
    importlib.invalidate_caches()
    before = list(sys.path)
    if folder:
        sys.path.insert(0, folder)
    try:
        importlib.import_module(module)
    except BaseException as error:
        raise_if_ours(error)
        if not (isinstance(error, ModuleNotFoundError) and error.name in (module, top)):
            where = "" if isinstance(error, SyntaxError) else place(error)  # Python names the place of a syntax error
            raise UsageError(f"its module {module} cannot be imported: {reason(error)}{where}") from error
        raise UsageError(_not_found(task, module)) from error
    finally:
        # Behind everything else: it may import its neighbours later, but must not hide anybody's modules.
        sys.path[:] = [*before, folder] if folder and folder not in before else before
    if folder:
        _loaded_from[top] = folder


def _folder_of(top: str, module_folder: str) -> str:
    """The folder that has the module, if it is to be found beside the task file or only in the working folder."""
    if module_folder and _holds(module_folder, top):
        return module_folder
    if top not in _loaded_from and (top in sys.modules or importlib.util.find_spec(top) is not None):
        return ""
    here = os.getcwd()
    return here if _holds(here, top) else ""


def _holds(folder: str, top: str) -> bool:
    try:
        return importlib.machinery.PathFinder.find_spec(top, [folder]) is not None
    except (ImportError, OSError, ValueError):
        return False


def _forget(top: str) -> None:
    del _loaded_from[top]
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]


def _not_found(task: Task, module: str) -> str:
    if module.endswith(".py"):
        meant = f"{module.removesuffix('.py')}:{task.environment.partition(':')[2]}"
        return f"a module is named, and not its file: write {meant}"
    beside = f"in {task.module_folder}, where the task file was, " if task.module_folder else ""
    file = Path(*module.split(".")).with_suffix(".py")
    return (
        f"its module {module} is not there: neither {beside}on Python's path nor in the working folder; "
        f"run the command in the folder with {file}, or set PYTHONPATH to that folder"
    )


def named_in_module(environment: str) -> object:
    """What NAME is in the module of MODULE:NAME, which has been imported; None if it is nothing there."""
    module, _, name = environment.partition(":")
    return getattr(sys.modules.get(module), name, None)
