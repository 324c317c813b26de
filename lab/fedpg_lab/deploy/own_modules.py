"""Modules that a federation in containers needs and FedPG's images do not have."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path

from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.tasks import module_of
from fedpg_common.worlds import modules_of_wrappers

IN_IMAGES = ("gymnasium", "fedpg_common", "fedpg_client", "fedpg_server", "fedpg_lab")
"""Packages that anybody may name parts of, and that every image of FedPG has."""


def modules_of_environments(federation: Federation) -> str | None:
    """The module that the task's environment comes from, as in MODULE:NAME, and those of wrappers, with commas.

    None where all is Gymnasium's own.
    """
    module = module_of(federation.task.environment)
    tasks = [federation.task, *map(federation.task_of, federation.environments)]
    wrappers = modules_of_wrappers(wrapper for task in tasks for wrapper in task.wrappers)
    return ",".join(sorted(wrappers | ({module} if module else set()))) or None


def who_names_them(federation: Federation) -> dict[str, str]:
    """Each module that is not FedPG's own, and the first part that names it, for example "the attack of agent 3"."""
    named: dict[str, str] = {}
    for module, who in _named(federation):
        if module.partition(".")[0] not in IN_IMAGES:
            named.setdefault(module, who)
    return named


def check_own_modules(federation: Federation, folder: Path | None, warn: Callable[[str], None]) -> None:
    """Raise UsageError if the `folder` of --modules lacks a module that the federation's containers import.

    A module that images of somebody's own may have, since it is installed here or no folder is given, is told of with
    `warn`. Nothing is imported: what a module needs beside, the containers may have and this machine not.
    """
    installed = importlib.metadata.packages_distributions()
    for module, who in who_names_them(federation).items():
        if folder is not None and _holds(folder, module):
            continue
        if folder is None or module.partition(".")[0] in installed:
            warn(
                f"{who} comes from the module {module}, which FedPG's images do not have: give its folder with "
                "--modules, or use images that have it"
            )
            continue
        file = Path(*module.split(".")).with_suffix(".py")
        raise UsageError(f"{who} comes from the module {module}, but --modules {folder} has no {file}: put it there")


def _named(federation: Federation) -> Iterator[tuple[str, str]]:
    if module := module_of(federation.task.environment):
        yield module, "the environment"
    for module in sorted(modules_of_wrappers(federation.task.wrappers)):
        yield module, "a wrapper of the task"
    for agent, world in sorted(federation.environments.items()):
        for module in sorted(modules_of_wrappers(world.wrappers or ())):
            yield module, f"a wrapper of agent {agent}"
    parts = {"the algorithm": federation.algorithm, "the aggregator": federation.aggregator}
    parts |= {f"the attack of agent {agent}": attack for agent, attack in sorted(federation.byzantine.items())}
    for who, part in parts.items():
        for module in part.modules if part is not None else ():
            yield module, who


def _holds(folder: Path, module: str) -> bool:
    places = [str(folder)]
    for depth in range(1, module.count(".") + 2):
        name = module.split(".")[depth - 1]
        try:
            spec = importlib.machinery.PathFinder.find_spec(name, places)
        except (ImportError, OSError, ValueError):
            return False
        if spec is None:
            return False
        places = list(spec.submodule_search_locations or ())
    return True
