"""A folder of runs that a restarted server finds its own run in."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from fedpg_common.federation import Federation, federation_from_toml, name_of
from fedpg_common.files import exists

from fedpg_server.store import STORE_NAME, Store


def folder_for(home: Path, federation: Federation) -> tuple[Path, bool]:
    """Where below `home` a federation's run belongs, and whether it is to be resumed there.

    An unfinished run of exactly this federation is gone on with; a finished one, or another federation's of the same
    name, is left alone and the next free name taken. Raises StorageError for a store that cannot be read.
    """
    for number in count(1):
        folder = home / (name_of(federation) if number == 1 else f"{name_of(federation)}-{number}")
        if not exists(folder / STORE_NAME):
            return folder, False
        if _is_unfinished(folder, federation):
            return folder, True
    raise AssertionError("count() does not end")


def _is_unfinished(folder: Path, federation: Federation) -> bool:
    store = Store.read(folder / STORE_NAME)
    try:
        if federation_from_toml(store.description, f"the store {store.path}") != federation:
            return False
        records = store.records()
    finally:
        store.close()
    return not records or records[-1].trajectories_total < federation.task.trajectories
