"""The command `fedpg experiment`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from fedpg_common.cli.command_line import explained
from fedpg_common.cli.ending import code_of, unwinding
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.files import make_folder, require_place
from fedpg_common.words import count

from fedpg_lab.commands.experiment_options import (
    HELP,
    Aggregator,
    Algorithm,
    Attack,
    File,
    InProcess,
    Jobs,
    OnlyOption,
    Out,
    Quick,
    ReportOnly,
    SeedsOption,
    Settings,
)

if TYPE_CHECKING:
    from rich.console import Console

    from fedpg_lab.experiments.matrix import Plan
    from fedpg_lab.experiments.plan import Experiment, PlannedRun
    from fedpg_lab.runs.folders import RunData

JOBS_MAX = 64
NAMED_MAX = 20
"""Federations that an error lists."""


@dataclass(frozen=True)
class Runs:
    """How an experiment's runs are done."""

    at_a_time: int
    in_process: bool
    """Each in one process, where that can be."""


@explained(HELP)
def experiment_command(
    file: File,
    quick: Quick = False,
    jobs: Jobs = None,
    in_process: InProcess = False,
    seeds: SeedsOption = None,
    only: OnlyOption = None,
    report_only: ReportOnly = False,
    aggregator: Aggregator = None,
    algorithm: Algorithm = None,
    attack: Attack = None,
    settings: Settings = None,
    out: Out = Path("runs"),
) -> None:
    """Run an experiment: a list of federations, each with several seeds; then report on it."""
    if jobs is not None and not 1 <= jobs <= JOBS_MAX:
        raise UsageError(f"--jobs must be 1 to {JOBS_MAX}, not {jobs}")
    require_place(out, "choose another --out")
    from fedpg_common.machine import cores

    from fedpg_lab.experiments.matrix_file import earlier_additions
    from fedpg_lab.experiments.named import named_parts, settings_of_command
    from fedpg_lab.experiments.plan import name_of_experiment, read_experiment

    named = named_parts(aggregator or (), algorithm or (), attack or (), settings or ())
    folder = out / name_of_experiment(file, quick)
    experiment = read_experiment(file, quick=quick, seeds=seeds, named=named, earlier=earlier_additions(folder))
    chosen = _chosen(experiment, only)
    parts = settings_of_command(aggregator, algorithm, attack, settings)
    command = _command(file, quick, seeds, only, in_process, parts)
    if not report_only:
        if experiment.plan is not None:
            _check(chosen)
        runs = Runs(jobs or cores(), in_process)
        _run(experiment, chosen, folder, runs, command)
    elif not _report(experiment, folder, command):
        raise StorageError(f"there is no run of {experiment.name} in {folder} to report on")


def _chosen(experiment: Experiment, only: str | None) -> list[PlannedRun]:
    """The runs that this command is to do. Raises UsageError if there are none."""
    plan = experiment.plan
    runs = [run for run in experiment.runs if plan is None or run.name.rpartition("/")[0] in plan.wanted]
    chosen = [planned for planned in runs if only is None or only in planned.name]
    if not chosen:
        names = sorted({planned.name.rpartition("/")[0] for planned in runs})
        more = f", and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        there_are = f"{', '.join(names[:NAMED_MAX])}{more}"
        raise UsageError(f"no run of {experiment.name} has {only!r} in its name; there are {there_are}")
    return chosen


def _check(chosen: Sequence[PlannedRun]) -> None:
    """Raise UsageError now for a part that cannot be built: a row of failures would come of it."""
    from fedpg_lab.commands.train import check_parts
    from fedpg_lab.terminal.waits import waits_are_told

    seen = set()
    for planned in chosen:
        federation = planned.name.rpartition("/")[0]
        if federation not in seen:
            seen.add(federation)
            with waits_are_told():
                check_parts(planned.federation)


def _run(experiment: Experiment, chosen: Sequence[PlannedRun], folder: Path, runs: Runs, command: str) -> None:
    """Run what is missing, then report, also when runs have failed."""
    from fedpg_lab.experiments.runner import RunsFailedError
    from fedpg_lab.local.children import kill_children
    from fedpg_lab.terminal.console import make_console

    console = make_console(stderr=True)
    make_folder(folder)
    with unwinding(hurry=kill_children) as signals:
        try:
            _run_and_tell(experiment, chosen, folder, runs, console)
        except (KeyboardInterrupt, SystemExit):
            if not signals:
                raise
            console.print("Interrupted. The same command continues it.")
            raise typer.Exit(code_of(signals)) from None
        except RunsFailedError:
            _report(experiment, folder, command)  # the other runs are done
            raise
        _report(experiment, folder, command)


def _run_and_tell(
    experiment: Experiment, chosen: Sequence[PlannedRun], folder: Path, runs: Runs, console: Console
) -> None:
    """Run what is missing; matrix.json, if there is a matrix, is up to date after each run."""
    from fedpg_lab.experiments.matrix_file import MatrixFile
    from fedpg_lab.experiments.plan import existing_run
    from fedpg_lab.experiments.runner import run_missing

    if experiment.plan is None:
        run_missing(chosen, folder, runs.at_a_time, console, in_process=runs.in_process)
        return
    matrix = MatrixFile(experiment, experiment.plan, folder)
    for planned in experiment.runs:  # also what this command leaves alone
        run = existing_run(folder, planned)
        if run is not None:
            matrix.note(planned, run)
    matrix.write()

    def on_run(planned: PlannedRun, run: RunData) -> None:
        matrix.note(planned, run)
        matrix.write()

    run_missing(chosen, folder, runs.at_a_time, console, on_run, in_process=runs.in_process)


def _report(experiment: Experiment, folder: Path, command: str) -> bool:
    """Report on the runs that there are; False without any."""
    from fedpg_lab.experiments.page import write_report
    from fedpg_lab.experiments.plan import existing_run

    found = [existing_run(folder, planned) for planned in experiment.runs]
    runs = [run for run in found if run is not None and run.records]
    if runs:
        page = write_report(experiment, runs, folder, command, datetime.now().astimezone())
        typer.echo(
            f"{sum(run.is_complete for run in runs)} of {count(len(experiment.runs), 'run')} are complete: see {page}"
        )
        if experiment.plan is not None:
            _say_worst(experiment, experiment.plan, folder, found)
    return bool(runs)


def _say_worst(experiment: Experiment, plan: Plan, folder: Path, found: Sequence[RunData | None]) -> None:
    """A line for each rule that has runs: what it reaches undisturbed, and under its worst attack."""
    from fedpg_lab.experiments.matrix_file import MatrixFile
    from fedpg_lab.experiments.matrix_page import describe_row
    from fedpg_lab.experiments.matrix_pictures import legend

    matrix = MatrixFile(experiment, plan, folder)
    for planned, run in zip(experiment.runs, found, strict=True):
        if run is not None:
            matrix.note(planned, run)
    results = matrix.results()
    for result in results:
        if len(results) > 1:
            typer.echo(f"{result.matrix.title}:")
        for line in filter(None, map(describe_row, result.rows)):
            typer.echo(f"  {line}")
        for sentence in legend(result):
            typer.echo(f"  {sentence}")


def _command(
    file: str, quick: bool, seeds: int | None, only: str | None, in_process: bool, parts_named: Sequence[str]
) -> str:
    """The command that repeats it."""
    parts = ["fedpg", "experiment", file, *(["--quick"] if quick else []), *(["--in-process"] if in_process else [])]
    parts += ["--seeds", str(seeds)] if seeds is not None else []
    parts += ["--only", only] if only is not None else []
    return shlex.join([*parts, *parts_named])
