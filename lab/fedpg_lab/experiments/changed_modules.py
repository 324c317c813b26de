"""Runs of an experiment that were begun with another version of a user's module than there is now."""

from __future__ import annotations

import shutil

from fedpg_common.errors import StorageError
from fedpg_common.modules import fingerprint, make_importable
from fedpg_server.storage.store import STORE_NAME, Store

from fedpg_lab.runs.folders import RunData


def changed_module(run: RunData) -> str:
    """A module of the run's that has changed since; "" if none has."""
    if not run.federation.modules:
        return ""
    make_importable(run.federation)
    changed = (name for name, begun_with in run.federation.modules.items() if fingerprint(name) not in ("", begun_with))
    return next(changed, "")


def begin_again(run: RunData, module: str) -> None:
    """Remove a run of which nothing has come before a module was changed: its first version has most likely failed.

    Raises StorageError if rounds have come of it, which would stand for the new version, or if it is live.
    """
    if run.records or Store.is_live(run.folder / STORE_NAME):
        raise StorageError(
            f"{run.folder} was run with another version of {module}: remove it, and whatever else was run with "
            "that version, to run it again, or choose another --out"
        )
    shutil.rmtree(run.folder)
