"""Summaries, pictures and pages of runs, finished or not, made wherever they lie."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpg_common.files import make_folder, shown
from fedpg_server.storage.store import STORE_NAME, Store

from fedpg_lab.figures.one_run import plot_run, plot_seeds
from fedpg_lab.runs.folders import PLOT_NAME, SUMMARY_NAME, RunData, find_run_folders, load_run, write_summary
from fedpg_lab.runs.listing import failure_of
from fedpg_lab.watch.saving import save_page

PAGE_NAME = "report.html"


def report_runs(folders: Sequence[Path], out: Path | None) -> list[tuple[Path, Mapping[str, Any]]]:
    """Write summary, picture and page of each run at or below `folders`, there or in `out`: where, and the summary.

    Raises StorageError.
    """
    reported = []
    for folder in folders:
        found = find_run_folders(folder)
        runs = [load_run(place) for place in found]
        several = len(folders) > 1 or found != [folder]
        top = _place(out, folder, several=len(folders) > 1)
        reported += [_report(run, _place_of(run, folder, out, top, several)) for run in runs]
        _plot_seeds(runs, folder, folder if out is None else top)
    return reported


def _place(out: Path | None, folder: Path, several: bool) -> Path:
    """Where the report of a named folder goes."""
    if out is None:
        return folder
    return out / folder.absolute().name if several else out


def _place_of(run: RunData, folder: Path, out: Path | None, top: Path, several: bool) -> Path:
    if out is None:
        return run.folder
    relative = os.path.relpath(run.folder, folder)
    return top / relative if several and relative != "." else top


def _report(run: RunData, place: Path) -> tuple[Path, Mapping[str, Any]]:
    make_folder(place)
    failure = None if run.is_complete or Store.is_live(run.folder / STORE_NAME) else failure_of(run.folder)
    summary = write_summary(run, place, failure)
    if run.records:
        plot_run(run, place / PLOT_NAME)
        save_page(run.folder, place / PAGE_NAME)
    return place, summary


def _plot_seeds(runs: Sequence[RunData], folder: Path, place: Path) -> None:
    """The picture of several seeds of one federation, if that is what lies in the folder."""
    drawn = [run for run in runs if run.records]
    if len(drawn) > 1 and all(run.folder.parent == folder and run.name.startswith("seed-") for run in drawn):
        plot_seeds(drawn, place)


def sentence(place: Path, summary: Mapping[str, Any]) -> str:
    """What was written, and what the run came to."""
    files = f"{shown(place / SUMMARY_NAME)}"
    if not summary["rounds"]:
        return f"{summary['name']}: no round has ended yet; see {files}"
    state = "complete" if summary["complete"] else "unfinished"
    value = summary["final_return"]
    figure = "not a number" if value is None or value != value else f"{value:.1f}"
    return (
        f"{summary['name']}: {state}, {summary['trajectories']}/{summary['trajectories_target']} trajectories, "
        f"final return {figure}; see {files}, {PLOT_NAME} and {PAGE_NAME}"
    )
