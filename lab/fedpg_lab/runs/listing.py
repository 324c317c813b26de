"""The runs below a folder, each in a line: what it is, how far it is, what it earned."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from fedpg_common.errors import FedPGError, StorageError
from fedpg_common.federation import Federation
from fedpg_common.files import shown
from fedpg_server.learning.totals import Returns
from fedpg_server.storage.reading import StoredRun
from fedpg_server.storage.store import STORE_NAME, Store

from fedpg_lab.runs.folders import SUMMARY_NAME, require_folder, walk_runs
from fedpg_lab.runs.states import State


@dataclass(frozen=True)
class RunLine:
    """One run of a listing. What cannot be known is None."""

    run: str
    """Its folder."""
    state: State
    task: str | None = None
    algorithm: str | None = None
    agents: int | None = None
    byzantine: int | None = None
    attack: str | None = None
    """The attacks, joined by " + "; None without attackers."""
    seed: int | None = None
    rounds: int | None = None
    trajectories: int | None = None
    trajectories_target: int | None = None
    final_return: float | None = None
    best_return: float | None = None
    note: str | None = None
    """Why it failed or cannot be read."""
    aggregator: str | None = None
    """The one that the description chooses; None for the algorithm's own."""
    changed: str | None = None
    """When its store was last written, in ISO 8601 with milliseconds, UTC: these texts sort as the times do."""


def list_runs(folder: Path) -> list[RunLine]:
    """Every run at or below `folder`, by path, seed-2 before seed-10. A run that cannot be read is a line, too.

    Raises StorageError if there is no such folder, or it cannot be read itself.
    """
    require_folder(folder)
    lines = []
    for place, failure in walk_runs(folder):
        if failure is None:
            lines.append(line_of(place, Store.read))
        elif place == folder:
            raise StorageError(f"{shown(folder)} cannot be read: {failure.strerror}")
        else:
            lines.append(RunLine(shown(place), State.UNREADABLE, note=f"the folder cannot be read: {failure.strerror}"))
    return sorted(lines, key=lambda line: _natural(line.run))


def _natural(text: str) -> list[str | int]:
    """What texts are sorted by, so that the numbers in them count as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


class Progress:
    """A run's returns as far as its store has been read, for who looks at it again and again while it grows."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self.returns = Returns()
        self._run_id: str | None = None

    def read(self, store: StoredRun) -> None:
        """Read what is new; another run's store, or an earlier copy, from its beginning. Raises StorageError."""
        known, run_id = self.returns, store.run_id
        found = store.progress(after=max(0, known.rounds - 1))  # with one to compare
        if run_id != self._run_id or (known.rounds and (not found or found[0][0] != known.trajectories)):
            self._run_id, self.returns = run_id, Returns()
            found = store.progress()
        elif known.rounds:
            del found[0]
        for count, values in found:
            self.returns.add(count, fmean(values))


def line_of(
    folder: Path,
    look_into: Callable[[Path], AbstractContextManager[StoredRun]],
    progress: Progress | None = None,
) -> RunLine:
    """The run in a folder. `look_into` opens its store: `Store.read`, which reads all of it, or `glance`.

    `progress` is what was read of it before, and is brought up to date.
    """
    return replace(_line_of(folder, look_into, progress), changed=_changed(folder / STORE_NAME))


def _changed(store: Path) -> str | None:
    """When a store was last written; None where that cannot be seen."""
    try:
        seconds = store.stat().st_mtime
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (OSError, ValueError, OverflowError):  # the latter two of a file that is dated beyond the year 9999
        return None


def _line_of(
    folder: Path, look_into: Callable[[Path], AbstractContextManager[StoredRun]], progress: Progress | None
) -> RunLine:
    path = folder / STORE_NAME
    progress = progress or Progress()
    try:
        with look_into(path) as store:
            federation = store.federation
            progress.read(store)
    except FedPGError as error:
        return RunLine(shown(folder), State.UNREADABLE, note=str(error))
    failure = failure_of(folder)
    returns = progress.returns
    state = _state_of(path, returns.trajectories, federation, failure)
    attacks = sorted({attack.label for attack in federation.byzantine.values()})
    return RunLine(
        run=shown(folder),
        state=state,
        task=federation.task.name,
        algorithm=" + ".join(part.label for part in (federation.algorithm, federation.aggregator) if part),
        aggregator=federation.aggregator.label if federation.aggregator else None,
        agents=federation.agents,
        byzantine=len(federation.byzantine),
        attack=" + ".join(attacks) or None,
        seed=federation.seed,
        rounds=returns.rounds,
        trajectories=returns.trajectories,
        trajectories_target=federation.task.trajectories,
        final_return=returns.final,
        best_return=returns.best,
        note=failure if state is State.FAILED else None,
    )


def _state_of(path: Path, trajectories: int, federation: Federation, failure: str | None) -> State:
    if trajectories >= federation.task.trajectories:
        return State.FINISHED
    if Store.is_live(path):
        return State.LIVE
    return State.FAILED if failure else State.UNFINISHED


def failure_of(folder: Path) -> str | None:
    """The sentence with which a run ended, if its summary tells one."""
    try:
        summary: Any = json.loads((folder / SUMMARY_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    failure = summary.get("failure") if isinstance(summary, dict) else None
    return failure if isinstance(failure, str) else None


def sorted_runs(lines: Sequence[RunLine], key: str, reverse: bool) -> list[RunLine]:
    """By a field; lines without it stand last either way, and those that have the same keep their order."""

    def value(line: RunLine) -> Any:
        return _natural(line.run) if key == "run" else getattr(line, key)

    known = [line for line in lines if getattr(line, key) is not None]
    unknown = [line for line in lines if getattr(line, key) is None]
    return [*sorted(known, key=value, reverse=reverse), *unknown]
