"""Adam's state of a finished run in another run's first round: how the published curves came about, and nothing else.

The code published with the paper makes one optimizer and loops over its seeds with it, so that every run but the first
starts with the moments and the step count of the run before (docs/results.md). `fedpg experiment` does so where an
experiment's [reproduction] asks for it; a run is otherwise its own.
"""

from __future__ import annotations

from pathlib import Path

from fedpg_common.errors import StorageError, UsageError
from fedpg_common.federation import Federation

from fedpg_server.learning.state import ADAM_M, ADAM_V, State, digest_of
from fedpg_server.storage.store import STORE_NAME, Store
from fedpg_server.storage.summary import is_complete


def check_carried(federation: Federation, adam_from: Path | None) -> None:
    """Raise UsageError for a new run that must take over an Adam state, and is not told whose."""
    if federation.predecessor is not None and adam_from is None:
        raise UsageError(
            f"this run starts with the Adam state of the finished run of seed {federation.predecessor.seed}, "
            "which only `fedpg experiment` hands on: leave out adam_after for a run of its own"
        )


def finished_state(folder: Path, federation: Federation) -> State:
    """The last state of `federation`'s predecessor, whose run folder this is.

    Raises StorageError if that is another run, or one that is not complete.
    """
    with Store.read(folder / STORE_NAME) as store:
        if store.federation != federation.predecessor:
            raise StorageError(f"{folder} holds another run than the one whose Adam state is to be taken over")
        if not is_complete(store.federation, store.records()):
            raise StorageError(f"the run in {folder} is not complete: its Adam state cannot be taken over yet")
        return store.latest_state()[1]


def with_adam_of(finished: State, initial: State) -> State:
    """The initial state with Adam's moments and step count of a finished run, whose policy has the same size."""
    return initial.with_vectors({name: finished.vectors[name] for name in (ADAM_M, ADAM_V)}, finished.steps)


def adam_digest(state: State) -> str:
    """SHA-256 of Adam's moments and step count, hexadecimal."""
    return digest_of(State({name: state.vectors[name] for name in (ADAM_M, ADAM_V)}, state.steps)).hex()
