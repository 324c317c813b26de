"""What an agent lets a server choose: Gymnasium's environments, but no module to import and no file to open.

A server names the environment and its options, and whoever runs the server need not be whom the agent's operator trusts
with this machine. The operator allows a module (`my_envs`, with all that is in it) or an environment
(`HalfCheetah-v5`, with any options).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from fedpg_common.checks import show
from fedpg_common.errors import RefusedError
from fedpg_common.tasks import Task, module_of
from fedpg_common.worlds import modules_of_wrappers

HARMLESS = re.compile(r"(?![.~])[\w .+-]*")
"""Text that is neither a path nor MODULE:NAME."""


def names_of(given: Iterable[str]) -> tuple[str, ...]:
    """The names in options that may be lists with commas."""
    return tuple(name for text in given for name in (part.strip() for part in text.split(",")) if name)


def trusting(task: Task) -> tuple[str, ...]:
    """What to allow where the user of this machine has chosen the task."""
    return (task.environment, *filter(None, [module_of(task.environment)]), *sorted(modules_of_wrappers(task.wrappers)))


def check_trusted(task: Task, allowed: Iterable[str]) -> None:
    """Raise RefusedError, before anything is imported, if the server's task asks for more than is `allowed`."""
    trusted = set(allowed)
    module, colon, _ = task.environment.partition(":")
    if colon and not ({task.environment} | _with_parents(module)) & trusted:
        raise RefusedError(
            f"the server's task {task.name} wants this agent to import the module {show(module)}, which is not allowed "
            f"here: if you trust it, start the agent with --allow {module} or FEDPG_ALLOW={module}"
        )
    for wrapper in sorted(modules_of_wrappers(task.wrappers)):
        if not _with_parents(wrapper) & trusted:
            raise RefusedError(
                f"the server's task {task.name} wants this agent to import the module {show(wrapper)} for a wrapper, "
                f"which is not allowed here: if you trust it, start the agent with --allow {wrapper} or "
                f"FEDPG_ALLOW={wrapper}"
            )
    paths = [] if colon or task.environment in trusted else list(_suspicious(task.environment_options))
    if paths:
        raise RefusedError(
            f"the server's task {task.name} has an environment option that could name a file or a module, "
            f"{show(paths[0])}, which is not allowed here: if you trust it, start the agent with "
            f"--allow {task.environment} or FEDPG_ALLOW={task.environment}"
        )


def _with_parents(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts) + 1)}


def _suspicious(value: object) -> Iterable[str]:
    """The texts in a value of an option, at any depth, that are more than a plain word."""
    if isinstance(value, str):
        if not HARMLESS.fullmatch(value):
            yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _suspicious(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _suspicious(entry)
