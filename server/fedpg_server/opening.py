"""What a run begins with, its description and its store, and the summary that it leaves."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedpg_common.descriptions import federation_to_toml
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.federation import Federation
from fedpg_common.files import make_folder, write_whole
from fedpg_common.modules import check_fingerprints, make_importable, with_fingerprints

from fedpg_server.carried_adam import adam_digest, finished_state, with_adam_of
from fedpg_server.learning.records import RoundRecord
from fedpg_server.learning.state import State
from fedpg_server.storage.damage import CONFIG_NAME
from fedpg_server.storage.store import STORE_NAME, Store
from fedpg_server.storage.summary import summarize, write_summary

log = logging.getLogger(__name__)


def take_up(federation: Federation | None, folder: Path, trajectories: int | None) -> Federation:
    """What is to be run, its own modules importable: the `federation`, or, for None, the run in the folder.

    The modules' fingerprints are taken of a new run, else compared. Raises StorageError if there is no run to resume,
    UsageError if a module has changed since it began.
    """
    if federation is not None:
        make_importable(federation)
        return with_fingerprints(federation)
    federation = federation_to_resume(folder, trajectories)
    make_importable(federation)
    check_fingerprints(federation)
    return federation


def federation_to_resume(folder: Path, trajectories: int | None) -> Federation:
    """The description of the run in a folder, ending at `trajectories` if they are given.

    Raises StorageError if there is no run, UsageError if the run has more trajectories already.
    """
    with Store.read(folder / STORE_NAME) as store:
        federation = store.federation
        progress = store.progress()
        unevaluated = store.unevaluated()
    if trajectories is None or trajectories == federation.task.trajectories:
        return federation
    done = unevaluated.trajectories_total if unevaluated else progress[-1][0] if progress else 0
    if trajectories < done:
        raise UsageError(
            f"the run in {folder} has {done} trajectories already: --trajectories must be more, not {trajectories}"
        )
    return replace(federation, task=replace(federation.task, trajectories=trajectories))


def create_store(folder: Path, federation: Federation, initial: State, adam_from: Path | None) -> Store:
    """A new run's store; learning starts at `initial`, with the Adam state of the run in `adam_from`, if that is given.

    Raises StorageError.
    """
    make_folder(folder)
    if adam_from is not None:
        initial = with_adam_of(finished_state(adam_from, federation), initial)
        federation = replace(federation, adam_digest=adam_digest(initial))
    description = federation_to_toml(federation)
    store = Store.create(folder / STORE_NAME, secrets.token_hex(8), description, initial)
    write_whole(folder / CONFIG_NAME, description)
    return store


def restore_store(folder: Path, federation: Federation) -> Store:
    """The store of a run that is resumed, checked; from now on it ends where `federation` says. Raises StorageError."""
    description = federation_to_toml(federation)
    store = Store.open(folder / STORE_NAME)
    if store.description != description:
        store.extend(description)
    write_whole(folder / CONFIG_NAME, description)  # an earlier process may have died before it got there
    return store


def leave_summary(folder: Path, federation: Federation, records: Sequence[RoundRecord], failure: str | None) -> None:
    """Write summary.json. The run is stored, so it has ended as it has even where this cannot be written."""
    try:
        write_summary(summarize(folder.absolute().name, federation, records, failure), folder)
    except StorageError as error:
        log.warning("%s", error)
