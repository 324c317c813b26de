"""Modules that are not FedPG's own: which version of them a run is made of."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation


def make_importable(federation: Federation) -> None:
    """Let modules beside the description, and in the working folder, be imported here and in child processes."""
    make_folders_importable(federation.module_folder)


def make_folders_importable(*folders: str) -> None:
    """Let modules in these folders, and in the working folder, be imported here and in this process's children.

    They come after everything that is installed, so that no file of theirs hides another's module.
    """
    for place in filter(None, (*folders, str(Path.cwd()))):
        if place not in sys.path:
            sys.path.append(place)
    importlib.invalidate_caches()


def fingerprint(module: str) -> str:
    """The version of the package that a module belongs to, if it has one, and a digest of its source.

    A package's digest covers all its Python files. "" where the module is not found, or has no source.
    """
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return ""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.rglob("*.py")) or [Path(spec.origin)]
    digest = sha256()
    for file in files:
        place = next((file.relative_to(folder) for folder in folders if file.is_relative_to(folder)), Path(file.name))
        digest.update(f"{place.as_posix()}\n".encode())
        digest.update(sha256(file.read_bytes()).digest())
    return f"{_version(top)}sha256:{digest.hexdigest()}"


def _version(top: str) -> str:
    distributions = importlib.metadata.packages_distributions().get(top, [])
    return f"{distributions[0]} {importlib.metadata.version(distributions[0])} " if distributions else ""


def with_fingerprints(federation: Federation, modules: Iterable[str] = ()) -> Federation:
    """The description with the fingerprints of its own modules, and of `modules`, as far as they are found here."""
    names = sorted({*federation.own_modules, *modules})
    return replace(federation, modules={name: found for name in names if (found := fingerprint(name))})


def check_fingerprints(federation: Federation) -> None:
    """Raise UsageError if a module has changed since the run began: what follows would not be the same run.

    A module that is not found here is not judged: an attack's lives with the agents.
    """
    for module, expected in federation.modules.items():
        found = fingerprint(module)
        if found and found != expected:
            raise UsageError(
                f"the module {module} has changed since the run began ({expected[:40]}… then, {found[:40]}… now): "
                "restore it, or start a new run"
            )
