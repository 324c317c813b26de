"""The command `fedpg faults`."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from fedpg_common.choices import Choice, Choices
from fedpg_common.cli.command_line import explained
from fedpg_common.cli.ending import code_of, unwinding
from fedpg_common.errors import FedPGError, InvariantViolatedError, StorageError, UsageError
from fedpg_common.federation import Federation, name_of
from fedpg_common.files import shown

from fedpg_lab.commands.faults_options import HELP, BackendOption, DryRun, File, NameOption, Out, Reference, Seed

if TYPE_CHECKING:
    from rich.console import Console

    from fedpg_lab.faults import report
    from fedpg_lab.faults.backend import Backend
    from fedpg_lab.faults.evidence import Evidence
    from fedpg_lab.faults.history import History
    from fedpg_lab.faults.invariants import Finding
    from fedpg_lab.faults.reference import RunReference
    from fedpg_lab.faults.scenario import Scenario


BACKENDS: Choices[Backend] = Choices(
    "backend",
    {
        "local": "fedpg_lab.faults.local_backend:LocalBackend",
        "docker": "fedpg_lab.faults.docker.backend:DockerBackend",
    },
)
"""Where a federation runs while it is harmed; each is imported with the libraries that it needs."""
REFERENCES: Choices[RunReference] = Choices(
    "reference of the backend",
    {
        "local": "fedpg_lab.faults.reference:run_locally",
        "docker": "fedpg_lab.faults.docker.reference:run_in_a_container",
    },
)
"""What a run is compared with: one that has the same libraries under it. A backend of one's own has the local one."""


@explained(HELP)
def faults_command(
    file: File,
    backend: BackendOption = "local",
    dry_run: DryRun = False,
    reference: Reference = True,
    seed: Seed = None,
    name: NameOption = None,
    out: Out = Path("runs"),
) -> None:
    """Run a federation while things fail, heal them, and check that every promise held."""
    from fedpg_lab.faults.scenario import read_scenario

    scenario = read_scenario(file, seed)
    choice = _chosen(backend)
    if dry_run:
        _print_plan(scenario)
        return
    command = shlex.join(["fedpg", "faults", file, "--backend", backend]
                         + ([] if seed is None else ["--seed", str(seed)])
                         + ([] if reference else ["--no-reference"]))  # fmt: skip
    _run(scenario, file, choice, out, name, reference, command)


def _run(
    scenario: Scenario, file: str, choice: Choice, out: Path, name: str | None, reference: bool, command: str
) -> None:
    """Run the scenario, judge it, and report."""
    from fedpg_lab.faults import report
    from fedpg_lab.faults.backend import UnsupportedFaultError
    from fedpg_lab.faults.history import Ending
    from fedpg_lab.faults.reference import REFERENCE_NAME
    from fedpg_lab.faults.runner import run_scenario
    from fedpg_lab.local.children import kill_children
    from fedpg_lab.local.progress import make_display
    from fedpg_lab.local.train import NewFolders, new_folder
    from fedpg_lab.terminal.console import make_console

    folder = new_folder(out, name, scenario.name)
    made = NewFolders(folder)
    console = make_console(stderr=True)
    with unwinding(hurry=kill_children) as interruptions:
        try:
            history = run_scenario(
                scenario,
                make_backend(choice, scenario.federation, folder, scenario.seed),
                folder,
                make_display(scenario.name, console),
                lambda line: console.print(line, soft_wrap=True),
            )
        except UnsupportedFaultError as error:
            made.remove_unless_resumable()
            raise UsageError(f"scenario {file}, backend {choice.label}: {error}") from error
        except BaseException:
            made.remove_unless_resumable()
            raise
        if made.remove_unless_resumable():  # before there was a run
            if history.ending is Ending.INTERRUPTED:
                raise typer.Exit(code_of(interruptions))
            raise StorageError("; ".join(history.failures) or f"the run left no store in {shown(folder)}")
        runs_reference = make_reference(choice, folder / REFERENCE_NAME, console) if reference else None
        outcomes = _judge(scenario, choice.label, history, folder, command, runs_reference)
        page = report.write_report(outcomes, folder, datetime.now().astimezone())
        _conclude(outcomes, page, interruptions)


def _chosen(backend: str) -> Choice:
    try:
        return BACKENDS.parse(backend)
    except UsageError as error:
        raise UsageError(f"--backend: {error}") from error


def make_backend(choice: Choice, federation: Federation, folder: Path, seed: int) -> Backend:
    """The backend of that name. Raises UsageError where its library is not installed."""
    try:
        return BACKENDS.build(choice, federation, folder, seed)
    except UsageError as error:
        missing = error.__cause__
        if choice.modules or not isinstance(missing, ModuleNotFoundError):
            raise
        raise UsageError(
            f"--backend {choice.name} needs the package {missing.name}: install fedpg with its extra [{choice.name}]"
        ) from error


def make_reference(choice: Choice, folder: Path, console: Console) -> RunReference:
    """What runs the reference for the backend of that name."""
    name = choice.name if choice.name in REFERENCES.shipped else "local"
    return REFERENCES.build(Choice(name), folder, console)


def _judge(
    scenario: Scenario, backend: str, history: History, folder: Path, command: str, reference: RunReference | None
) -> report.Outcomes:
    """Read what the run left behind, and check it. Raises StorageError."""
    from fedpg_lab.faults import report
    from fedpg_lab.faults.evidence import read_evidence
    from fedpg_lab.faults.history import Ending
    from fedpg_lab.faults.invariants import Finding, Outcome, check_run
    from fedpg_lab.faults.reference import NAME
    from fedpg_lab.local.train import finish

    finish(folder)
    evidence = read_evidence(folder)
    findings = check_run(evidence, history)
    if history.ending is Ending.INTERRUPTED:
        findings.append(Finding(NAME, Outcome.NOT_CHECKED, "nothing", "it was interrupted"))
    else:
        findings.append(_compared(evidence, reference))
    return report.Outcomes(scenario, backend, history, evidence, findings, command)


def _compared(evidence: Evidence, reference: RunReference | None) -> Finding:
    from fedpg_lab.faults.invariants import Finding, Outcome
    from fedpg_lab.faults.reference import NAME, compare_with_reference

    try:
        return compare_with_reference(evidence, reference)
    except (KeyboardInterrupt, SystemExit):
        return Finding(NAME, Outcome.NOT_CHECKED, "nothing", "the reference was interrupted")
    except FedPGError as error:
        return Finding(NAME, Outcome.NOT_CHECKED, "nothing", f"the reference failed: {error}")


def _conclude(outcomes: report.Outcomes, page: Path, interruptions: list[int]) -> None:
    """Print the invariants, and end with the exit code that is due."""
    from fedpg_lab.faults import report
    from fedpg_lab.faults.invariants import Outcome

    _print_table(report.findings_table(outcomes.findings))
    typer.echo(f"See {page}")
    if interruptions:
        raise typer.Exit(code_of(interruptions))
    violated = [finding.invariant for finding in outcomes.findings if finding.outcome is Outcome.VIOLATED]
    if violated:
        more = f", and {len(violated) - 1} more" if len(violated) > 1 else ""
        raise InvariantViolatedError(f"an invariant is violated: {violated[0]}{more}; see {page}")


def _print_plan(scenario: Scenario) -> None:
    from fedpg_lab.faults import report

    federation = scenario.federation
    typer.echo(f"{scenario.title}: seed {scenario.seed}")
    typer.echo(
        f"{name_of(federation)}, quorum {federation.quorum}, {federation.task.trajectories} trajectories, "
        f"a round's deadline {federation.round_timeout_s:g} s, at most {scenario.at_most_s:g} s in all"
    )
    _print_table(report.planned_table(scenario.planned))


def _print_table(table: report.Table) -> None:
    """On the terminal, or as wide as need be in a file."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from fedpg_lab.terminal.console import table_console

    header, lines = table
    shown = Table(box=box.SIMPLE_HEAD)
    for name in header:
        shown.add_column(name, overflow="fold")
    for line in lines:
        shown.add_row(*map(Text, line))
    table_console().print(shown)
