"""The command `fedpg faults`."""

from __future__ import annotations

import importlib
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from fedpg_common.errors import ExitCode, FedPGError, InvariantViolatedError, StorageError, UsageError
from fedpg_common.federation import Federation, name_of
from fedpg_common.files import shown
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from fedpg_lab.faults import report
from fedpg_lab.faults.backend import Backend, UnsupportedFaultError
from fedpg_lab.faults.evidence import Evidence, read_evidence
from fedpg_lab.faults.history import Ending, History
from fedpg_lab.faults.invariants import Finding, Outcome, check_run
from fedpg_lab.faults.reference import NAME, REFERENCE_NAME, RunReference, compare_with_reference
from fedpg_lab.faults.runner import run_scenario
from fedpg_lab.faults.scenario import Scenario, read_scenario, shipped
from fedpg_lab.one_run import raise_terminated
from fedpg_lab.progress import make_display
from fedpg_lab.train import NewFolders, finish, new_folder

WIDTH_IN_A_FILE = 200
"""Columns of a table that is not on a terminal."""


class BackendName(StrEnum):
    """Where the federation runs."""

    LOCAL = "local"
    DOCKER = "docker"


BACKENDS = {
    BackendName.LOCAL: ("fedpg_lab.faults.local_backend", "LocalBackend"),
    BackendName.DOCKER: ("fedpg_lab.faults.docker.backend", "DockerBackend"),
}
"""Module and class; each is imported only when it is asked for, with the libraries that it needs."""
REFERENCES = {
    BackendName.LOCAL: ("fedpg_lab.faults.reference", "run_locally"),
    BackendName.DOCKER: ("fedpg_lab.faults.docker.reference", "run_in_a_container"),
}
"""Module and function: a run is compared with one that has the same libraries under it."""


def faults_command(
    file: Annotated[
        str, typer.Argument(help=f"A scenario file (NAME.toml), or one that comes with FedPG: {', '.join(shipped())}.")
    ],
    backend: Annotated[BackendName, typer.Option(help="Processes on this machine, or containers.")] = BackendName.LOCAL,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what will happen to whom, and do nothing.")] = False,
    reference: Annotated[
        bool,
        typer.Option("--reference/--no-reference", help="Run the federation without faults too, and compare."),
    ] = True,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the federation and of who is hit.", metavar="N", show_default="file's"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run folder.", show_default="the scenario's")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
) -> None:
    """Run a federation while things fail, heal them, and check that every promise held.

    The run folder gets what every run has, and faults.png (return, faults, who was absent, time lost), faults.json and
    faults.html, one page that holds it all. Invariants are checked from the store, the logs and what was seen: one vote
    per agent and round, no round below the quorum, no gaps, nothing told that is not stored, and, for as long as nobody
    was absent, the same parameters as a run without faults, bit for bit.

    A scenario file:

        title = "A majority is cut off"
        seed = 0                        # who is hit follows from it
        [federation]                    # the options of `fedpg train`
        task = "CartPole-v1"
        agents = 10
        trajectories = 600
        round_timeout_s = 5.0
        [[fault]]                       # as many as wanted
        kind = "partition"              # or kill, stop, restart, pause,
                                        # black-hole, latency, bandwidth,
                                        # loss, corruption, reset, slow-cpu
        split = "majority"              # or isolate-one, minority, server-alone
        at_round = 5                    # or at_s = 10.0, since round 1 opened
        for_s = 20.0                    # or for_rounds = 3, for at_most_s = 60 s
        [[fault]]
        kind = "latency"
        on = "2 agents"                 # or "server", [3, 4], "1 honest",
                                        # "all byzantine"
        delay_s = 0.2                   # and jitter_s; bandwidth: bytes_per_s;
                                        # loss, corruption, slow-cpu: fraction
        at_s = 5.0
        for_s = 2.0
        times = 3                       # again, on the same targets
        every_s = 8.0                   # or every_rounds

    Whatever happens, every fault is healed at the end, and the scenario ends after `at_most_s` (1800 s).

    Exit codes: 0 the run ended and what was checked holds; 2 bad option or file, or a fault that cannot be made here;
    3 the Docker engine failed; 6 a folder or store cannot be used; 8 an invariant is violated, or the run did not end;
    130 Ctrl-C; 143 terminated.
    """
    scenario = read_scenario(file, seed)
    if dry_run:
        _print_plan(scenario)
        return
    folder = new_folder(out, name, scenario.name)
    made = NewFolders(folder)
    command = shlex.join(["fedpg", "faults", file, "--backend", backend.value]
                         + ([] if seed is None else ["--seed", str(seed)])
                         + ([] if reference else ["--no-reference"]))  # fmt: skip
    console = Console(stderr=True)
    with _interruptions() as interruptions:
        try:
            history = run_scenario(
                scenario,
                make_backend(backend, scenario.federation, folder, scenario.seed),
                folder,
                make_display(scenario.name, console),
                lambda line: console.print(line, highlight=False, soft_wrap=True, markup=False),
            )
        except UnsupportedFaultError as error:
            made.remove_unless_resumable()
            raise UsageError(f"scenario {file}, backend {backend.value}: {error}") from error
        except BaseException:
            made.remove_unless_resumable()
            raise
        if made.remove_unless_resumable():  # before there was a run
            if history.ending is Ending.INTERRUPTED:
                raise typer.Exit(_code_of(interruptions))
            raise StorageError("; ".join(history.failures) or f"the run left no store in {shown(folder)}")
        runs_reference = make_reference(backend, folder / REFERENCE_NAME, console) if reference else None
        outcomes = _judge(scenario, backend.value, history, folder, command, runs_reference)
    page = report.write_report(outcomes, folder, datetime.now().astimezone())
    _conclude(outcomes, page, interruptions)


def make_backend(name: BackendName, federation: Federation, folder: Path, seed: int) -> Backend:
    """The backend of that name. Raises UsageError where its library is not installed."""
    module, kind = BACKENDS[name]
    try:
        backend: Backend = getattr(importlib.import_module(module), kind)(federation, folder, seed)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--backend {name.value} needs the package {error.name}: install fedpg with its extra [{name.value}]"
        ) from error
    return backend


def make_reference(name: BackendName, folder: Path, console: Console) -> RunReference:
    """What runs the reference for the backend of that name."""
    module, function = REFERENCES[name]
    reference: RunReference = getattr(importlib.import_module(module), function)(folder, console)
    return reference


def _judge(
    scenario: Scenario, backend: str, history: History, folder: Path, command: str, reference: RunReference | None
) -> report.Outcomes:
    """Read what the run left behind, and check it. Raises StorageError."""
    finish(folder)
    evidence = read_evidence(folder)
    findings = check_run(evidence, history)
    if history.ending is Ending.INTERRUPTED:
        findings.append(Finding(NAME, Outcome.NOT_CHECKED, "nothing", "it was interrupted"))
    else:
        findings.append(_compared(evidence, reference))
    return report.Outcomes(scenario, backend, history, evidence, findings, command)


def _compared(evidence: Evidence, reference: RunReference | None) -> Finding:
    try:
        return compare_with_reference(evidence, reference)
    except (KeyboardInterrupt, SystemExit):
        return Finding(NAME, Outcome.NOT_CHECKED, "nothing", "the reference was interrupted")
    except FedPGError as error:
        return Finding(NAME, Outcome.NOT_CHECKED, "nothing", f"the reference failed: {error}")


def _conclude(outcomes: report.Outcomes, page: Path, interruptions: Sequence[int]) -> None:
    """Print the invariants, and end with the exit code that is due."""
    _print_table(report.findings_table(outcomes.findings))
    typer.echo(f"See {page}")
    if interruptions:
        raise typer.Exit(_code_of(interruptions))
    violated = [finding.invariant for finding in outcomes.findings if finding.outcome is Outcome.VIOLATED]
    if violated:
        more = f", and {len(violated) - 1} more" if len(violated) > 1 else ""
        raise InvariantViolatedError(f"an invariant is violated: {violated[0]}{more}; see {page}")


def _print_plan(scenario: Scenario) -> None:
    federation = scenario.federation
    typer.echo(f"{scenario.title}: seed {scenario.seed}")
    typer.echo(
        f"{name_of(federation)}, quorum {federation.quorum}, {federation.task.trajectories} trajectories, "
        f"a round's deadline {federation.round_timeout_s:g} s, at most {scenario.at_most_s:g} s in all"
    )
    _print_table(report.planned_table(scenario.planned))


def _print_table(table: report.Table) -> None:
    """On the terminal, or as wide as need be in a file."""
    header, lines = table
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_IN_A_FILE)
    shown = RichTable(box=box.SIMPLE_HEAD)
    for name in header:
        shown.add_column(name, overflow="fold")
    for line in lines:
        shown.add_row(*map(escape, line))
    console.print(shown)


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """SIGTERM ends it as cleanly as Ctrl-C; gives the list of the signals that came."""
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if number == signal.SIGTERM:
            raise_terminated(number, frame)
        signal.default_int_handler(number, frame)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _code_of(interruptions: Sequence[int]) -> ExitCode:
    return ExitCode.TERMINATED if signal.SIGTERM in interruptions else ExitCode.INTERRUPTED
