"""`fedpg train --resume`: a run, or the seeds of one federation, continued to their end or further."""

from __future__ import annotations

import logging
from pathlib import Path

from fedpg_common.errors import StorageError
from fedpg_common.files import exists, shown
from fedpg_server.opening import federation_to_resume
from fedpg_server.storage.store import STORE_NAME, Store
from rich.console import Console

from fedpg_lab.figures.one_run import plot_run, plot_seeds
from fedpg_lab.local.one_run import say, say_done, train_one
from fedpg_lab.local.train import TrainOptions
from fedpg_lab.runs.folders import PLOT_NAME, SUMMARY_NAME, RunData, load_run, require_run, seed_folders, write_summary

log = logging.getLogger(__name__)


def resume_runs(folder: Path, trajectories: int | None, options: TrainOptions, console: Console) -> None:
    """Continue the run in `folder`, or one after the other all its seeds, until `trajectories` if they are given.

    A run that is complete is left as it is. Raises StorageError if there is no run or one of them is under way,
    UsageError if one of them has more trajectories already, and then none is touched.
    """
    seeds = seed_folders(folder)
    if not seeds or exists(folder / STORE_NAME):
        require_run(folder)
        seeds = [folder]
    for place in seeds:
        federation_to_resume(place, trajectories)
        if Store.is_live(place / STORE_NAME):
            raise StorageError(f"the run in {shown(place)} is under way: another server has its store")
    runs = [_resume_one(place, trajectories, options, console) for place in seeds]
    if folder not in seeds:
        plot_seeds(runs, folder)
        say(console, f"All seeds in one picture: {shown(folder / PLOT_NAME)}")


def _resume_one(folder: Path, trajectories: int | None, options: TrainOptions, console: Console) -> RunData:
    run = load_run(folder)
    target = run.federation.task.trajectories if trajectories is None else trajectories
    if not run.is_complete or target != run.federation.task.trajectories:
        return train_one(
            federation_to_resume(folder, trajectories), folder, options, console, resume=True, trajectories=trajectories
        )
    say(console, f"The run in {shown(folder)} is complete: there is nothing to resume (--trajectories N continues it).")
    _write_what_is_missing(run)
    say_done(run, console)
    return run


def _write_what_is_missing(run: RunData) -> None:
    try:
        if not exists(run.folder / SUMMARY_NAME):
            write_summary(run)
        if not exists(run.folder / PLOT_NAME):
            plot_run(run, run.folder / PLOT_NAME)
    except StorageError as error:  # a run that may only be read is complete all the same
        log.warning("%s", error)
