"""Run folders: reading them back and summing them up."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpg_common.errors import StorageError
from fedpg_common.federation import Federation
from fedpg_common.files import Kind, exists, is_folder, look, shown
from fedpg_common.words import count
from fedpg_server.learning import records as round_records
from fedpg_server.learning.records import RoundRecord
from fedpg_server.storage import summary as run_summary
from fedpg_server.storage.damage import advice
from fedpg_server.storage.mark import mark_path
from fedpg_server.storage.store import STORE_NAME, Store
from fedpg_server.storage.summary import SUMMARY_NAME

__all__ = [
    "PLOT_NAME",
    "SUMMARY_NAME",
    "RunData",
    "final_return",
    "load_run",
    "summarize",
    "trajectories_to_reach",
    "write_summary",
]

PLOT_NAME = "returns.png"
RUNS = Path("runs")
"""Where run folders go and are looked for, unless somebody says otherwise."""
NOT_RUNS = ("checkpoints", "tensorboard", "logs")
"""Folders of a run folder in which no other run is looked for."""


@dataclass(frozen=True)
class RunData:
    """What a run folder says of its run."""

    folder: Path
    federation: Federation
    records: list[RoundRecord]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name or self.folder.absolute().name

    @property
    def is_complete(self) -> bool:
        """Whether the run reached its trajectory count."""
        return run_summary.is_complete(self.federation, self.records)

    def __repr__(self) -> str:
        """Where it is and how far, without every record."""
        state = "complete" if self.is_complete else "unfinished"
        return f"<RunData {str(self.folder)!r}: {count(len(self.records), 'round')}, {state}>"


def load_run(folder: Path) -> RunData:
    """Read a run folder, also of a run that goes on. Raises StorageError."""
    require_run(folder)
    with Store.read(folder / STORE_NAME) as store:
        return RunData(folder, store.federation, store.records())


def require_folder(folder: Path) -> None:
    """Raise StorageError, which says what to give instead, unless `folder` is a folder."""
    kind = look(folder)
    if kind is Kind.MISSING:
        raise StorageError(f"there is no folder {shown(folder)}: {how_to_make_runs(folder)}, or give one that has runs")
    if kind is not Kind.FOLDER:
        raise StorageError(f"{shown(folder)} is not a folder: give a run folder, or one with runs")


def require_run(folder: Path) -> None:
    """Raise StorageError, which says what is there instead, unless `folder` is a folder with a store."""
    require_folder(folder)
    if exists(folder / STORE_NAME):
        return
    if exists(mark_path(folder / STORE_NAME)):
        raise StorageError(f"the run in {shown(folder)} has lost its {STORE_NAME}: {advice(folder / STORE_NAME)}")
    raise StorageError(
        f"there is no run in {shown(folder)}, which has no {STORE_NAME}: {how_to_make_runs(folder)}, or give a folder "
        "that has one"
    )


def how_to_make_runs(folder: Path) -> str:
    """What to type for a run below this folder, for a sentence that says that there is none."""
    where = "" if folder == RUNS else f" --out {shlex.quote(shown(folder))}"
    return f"fedpg train{where} makes one there"


def find_run_folders(folder: Path) -> list[Path]:
    """The run folders at or below `folder`, in order. Raises StorageError if there are none."""
    if look(folder) is Kind.FOLDER and not exists(folder / STORE_NAME):
        found = sorted(below for below, _ in walk_runs(folder) if below != folder)
        if found:
            return found
    require_run(folder)
    return [folder]


def walk_runs(folder: Path) -> Iterator[tuple[Path, OSError | None]]:
    """The run folders at or below `folder`; and each folder that cannot be searched, with the reason.

    Links are not followed, so that nothing is met twice.
    """
    failures: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=failures.append):
        if STORE_NAME in files:
            folders[:] = [name for name in folders if name not in NOT_RUNS]
            yield Path(place), None
        folders.sort()
    yield from ((Path(os.fsdecode(failure.filename)), failure) for failure in failures)


def summarize(
    run: RunData, failure: str | None = None, failed_agents: Mapping[int, str] | None = None
) -> dict[str, Any]:
    """The run in figures, JSON-ready but for numbers that are not finite."""
    return run_summary.summarize(run.name, run.federation, run.records, failure, failed_agents)


def write_summary(
    run: RunData,
    folder: Path | None = None,
    failure: str | None = None,
    failed_agents: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """Write summary.json into the run folder, or another, and return it. Raises StorageError."""
    summary = summarize(run, failure, failed_agents)
    run_summary.write_summary(summary, run.folder if folder is None else folder)
    return summary


def final_return(run: RunData) -> float | None:
    """Mean evaluation return over the last 5 % of trajectories, as the figures are read; None where there is none."""
    return round_records.final_return(run.records)


def trajectories_to_reach(run: RunData, target: float) -> int | None:
    """Trajectory count of the first round whose evaluation return reaches `target`, or None."""
    reached = (record.trajectories_total for record in run.records if record.evaluation_return >= target)
    return next(reached, None)


def seed_folders(folder: Path) -> list[Path]:
    """The runs of several seeds directly below `folder`, by seed; empty if it holds none.

    Raises StorageError for a folder that cannot be read.
    """
    if not is_folder(folder):
        return []
    try:
        names = [name for name in os.listdir(folder) if name.startswith("seed-") and name[5:].isdecimal()]
    except OSError as error:
        raise StorageError(f"{shown(folder)} cannot be read: {error.strerror}") from error
    folders = [folder / name for name in sorted(names, key=lambda name: int(name[5:]))]
    return [place for place in folders if exists(place / STORE_NAME)]
