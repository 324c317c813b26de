"""A folder of runs that a restarted server finds its own run in."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

from fedpg_common.federation import Federation, name_of
from fedpg_common.files import exists

from fedpg_server.storage.store import STORE_NAME, Store


def folder_for(home: Path, federation: Federation, any_seed: bool = False) -> tuple[Path, bool]:
    """Where below `home` a federation's run belongs, and whether it is to be resumed there.

    An unfinished run of exactly this federation is gone on with; a finished one, or another federation's of the same
    name, is left alone and the next free name taken. With `any_seed` a run is gone on with whatever its seed: one drawn
    at random is another each time. Raises StorageError for a store that cannot be read.
    """
    for number in count(1):
        folder = home / (name_of(federation) if number == 1 else f"{name_of(federation)}-{number}")
        if not exists(folder / STORE_NAME):
            return folder, False
        if _is_unfinished(folder, federation, any_seed):
            return folder, True
    raise AssertionError("count() does not end")


def _is_unfinished(folder: Path, federation: Federation, any_seed: bool) -> bool:
    with Store.read(folder / STORE_NAME) as store:
        stored = store.federation
        if replace(stored, seed=federation.seed if any_seed else stored.seed) != federation:
            return False
        records = store.records()
    return not records or records[-1].trajectories_total < federation.task.trajectories
