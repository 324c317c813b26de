"""The command `fedpg train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fedpg_common.cli.ending import unwinding
from fedpg_common.cli.federation_options import Description, federation_options
from fedpg_common.cli.observer_options import OBSERVER, OBSERVERS, chosen_observers
from fedpg_common.cli.options import ADVANCED, OUTPUT, SEVERAL, refuse_ignored_options
from fedpg_common.errors import UsageError
from fedpg_common.federation import SEED_MAX, Federation, name_of
from fedpg_common.rounds import why_no_worlds
from fedpg_common.words import count, on_one_line

from fedpg_lab.ensemble.groups import Grouping

if TYPE_CHECKING:
    from rich.console import Console

    from fedpg_lab.local.train import TrainOptions

TAKEN_BY_RESUME = ("resume", "trajectories", "agents_per_process", "in_process", "threads", "tensorboard", "observer")
"""The options that mean something to a run which has its description already."""


Runs = Annotated[
    int,
    typer.Option(
        help="Repeat with this many consecutive seeds, everything fresh.", metavar="N", rich_help_panel=SEVERAL
    ),
]

Groups = Annotated[
    int | None,
    typer.Option(
        help="Split the agents into groups that train a policy each.",
        metavar="K",
        show_default="no groups",
        rich_help_panel=SEVERAL,
    ),
]

GroupingOption = Annotated[
    Grouping,
    typer.Option(help="Who is in which: hash, round-robin or worst-case.", metavar="RULE", rich_help_panel=SEVERAL),
]

NameOption = Annotated[str | None, typer.Option(help="Name of the run folder.", metavar="NAME", show_default="made up")]

Out = Annotated[Path, typer.Option(help="Where run folders go.", metavar="FOLDER", rich_help_panel=OUTPUT)]

AgentsPerProcess = Annotated[
    int, typer.Option(help="Agents that share a process.", metavar="N", min=1, rich_help_panel=ADVANCED)
]

InProcess = Annotated[
    bool,
    typer.Option(
        "--in-process",
        help="All in one process, without a network: the same parameters and records, sooner.",
        metavar="",
    ),
]

ThreadsOption = Annotated[
    int | None,
    typer.Option(
        help="Threads or processes that share the server's own episodes, where they can.",
        metavar="N",
        show_default="the cores that it may use",
        min=1,
        rich_help_panel=ADVANCED,
    ),
]

Tensorboard = Annotated[bool, typer.Option(help="Write TensorBoard files.", metavar="", rich_help_panel=OUTPUT)]

ResumeOption = Annotated[
    Path | None,
    typer.Option(
        help="Resume the run in this folder, or all unfinished seeds of it; with --trajectories, until there; "
        "with --in-process, in one process, however it was begun.",
        metavar="FOLDER",
    ),
]


@federation_options(file=True)
def train_command(
    described: Description,
    *,
    runs: Runs = 1,
    groups: Groups = None,
    grouping: GroupingOption = Grouping.HASH,
    name: NameOption = None,
    out: Out = Path("runs"),
    agents_per_process: AgentsPerProcess = 1,
    in_process: InProcess = False,
    threads: ThreadsOption = None,
    tensorboard: Tensorboard = True,
    observer: Annotated[list[str] | None, OBSERVER] = None,
    resume: ResumeOption = None,
) -> None:
    """Train a policy: one server and K agents as processes on this machine, over gRPC.

    With --in-process they work in one process, one after the other, for trying out rules and attacks: the parameters
    are the same, bit for bit.

    The run folder gets the store (run.sqlite), config.toml, summary.json, returns.png, checkpoints, TensorBoard files
    and a log for each process. Ctrl-C ends a run cleanly; --resume continues it, over the network unless --in-process
    is given again, with the same bits either way. A finished run continues with `--resume FOLDER --trajectories N`,
    and is then the run that N from the start would have been. With --groups there
    is such a folder for each group, to be evaluated with `fedpg ensemble`.

    Exit codes: 0 done; 2 bad option; 5 an address cannot be used; 6 a folder or store cannot be used; 9 an environment
    failed; 10 too few agents are left for a quorum; 130 Ctrl-C; 143 terminated.
    """
    from fedpg_lab.local.fork_server import fork_server
    from fedpg_lab.terminal.console import make_console

    observers = chosen_observers(tensorboard, observer or ())
    console = make_console(stderr=True)
    if resume is not None:
        assert described.context is not None
        refuse_ignored_options(described.context, TAKEN_BY_RESUME)
        fork_server()
        from fedpg_lab.local.resume import resume_runs
        from fedpg_lab.local.train import TrainOptions

        options = TrainOptions(agents_per_process, observers, threads, in_process)
        resume_runs(resume, described.typed("trajectories"), options, console)
        return
    federation = described.federation()
    fork_server()  # it imports beside this process
    from fedpg_lab.local.train import TrainOptions
    from fedpg_lab.terminal.waits import waits_are_told

    with waits_are_told():  # parts of one's own are imported and made here
        check_parts(federation)
        for one in observers:
            if one.modules:
                OBSERVERS.find(one.name)
    if described.drew_seed:
        console.print(f"Seed {federation.seed}, drawn at random.")
    check_count(runs, federation)
    warn_of_too_many(federation)
    if rarely := why_no_worlds(federation):
        typer.echo(f"fedpg: {rarely}", err=True)
    options = TrainOptions(agents_per_process, observers, threads, in_process)
    if groups is not None:
        if runs != 1:
            raise UsageError("--groups and --runs do not go together: train one ensemble for each --seed")
        _train_groups(federation, groups, grouping, out, name, options, console)
        return
    _train_seeds(federation, runs, out, name, options, console)


def _train_seeds(
    federation: Federation, runs: int, out: Path, name: str | None, options: TrainOptions, console: Console
) -> None:
    """One run, or one for each of so many consecutive seeds."""
    from fedpg_lab.local.one_run import train_one
    from fedpg_lab.local.train import new_folder

    folder = new_folder(out, name, name_of(federation))
    if runs == 1:
        train_one(federation, folder, options, console)
        return
    done = []
    for number in range(1, runs + 1):
        one = dataclasses.replace(federation, seed=federation.seed + number - 1)
        title = f"{folder.name} seed {one.seed} ({number} of {runs})"
        done.append(train_one(one, folder / f"seed-{one.seed}", options, console, title=title))
    from fedpg_lab.figures.one_run import plot_seeds
    from fedpg_lab.runs.folders import PLOT_NAME

    with unwinding():
        plot_seeds(done, folder)
    console.print(on_one_line(f"All seeds in one picture: {folder / PLOT_NAME}"), soft_wrap=True)


def _train_groups(
    federation: Federation,
    groups: int,
    grouping: Grouping,
    out: Path,
    name: str | None,
    options: TrainOptions,
    console: Console,
) -> None:
    """A run for each group of the agents, checked beforehand like a federation."""
    from fedpg_lab.ensemble.groups import federation_of, split
    from fedpg_lab.ensemble.training import train_groups
    from fedpg_lab.local.train import new_folder

    members = split(federation, groups, grouping)
    for number, group in enumerate(members, start=1):
        check_parts(federation_of(federation, group, number))
    folder = new_folder(out, name, f"{name_of(federation)}-groups-{groups}")
    train_groups(federation, members, grouping, folder, options, console)


def check_parts(federation: Federation) -> None:
    """Raise UsageError now for what the server would refuse to build, so that no run folder is made for it."""
    from fedpg_client.attacks import build_attacker
    from fedpg_common.learning.aggregators import build_aggregator
    from fedpg_common.learning.aggregators.composition import check_federation
    from fedpg_common.modules import make_importable
    from fedpg_common.shipped import ALGORITHMS

    from fedpg_lab.local.agent_setup import same_attack

    if federation.adam_after is not None:
        raise UsageError("adam_after belongs to the runs of an experiment's [reproduction]: leave it out")
    make_importable(federation)
    algorithm = ALGORITHMS.find(federation.algorithm.name)
    chosen = federation.aggregator
    if chosen is not None:
        aggregator = build_aggregator(chosen)
        has_reference = hasattr(algorithm, "reference_gradient") or getattr(aggregator, "needs_reference", False)
        check_federation(aggregator, chosen, federation.task, federation.agents, has_reference)
    for attack, attackers in same_attack(federation):
        try:
            build_attacker(attack)
        except UsageError as error:
            among_others = len(attackers) < len(federation.byzantine)
            raise UsageError(f"{f'agent {attackers[0]}: ' * among_others}{error}") from error
    if any(world.wrappers for world in federation.environments.values()):
        from fedpg_common.environments.modules import check_wrappers_of_worlds

        check_wrappers_of_worlds(federation)


def check_count(runs: int, federation: Federation) -> None:
    """Raise UsageError for a number of runs that cannot be, or for which there are not enough seeds."""
    if runs < 1:
        raise UsageError(f"--runs must be at least 1, not {runs}")
    if federation.seed + runs - 1 > SEED_MAX:
        raise UsageError(
            f"with --seed {federation.seed} and --runs {runs} the last seed would be above 2**63 - 1: "
            "choose less of either"
        )


def warn_of_too_many(federation: Federation) -> None:
    """Say so if more agents attack than the filter is made for."""
    attacking, members, alpha = len(federation.byzantine), federation.agents, federation.task.alpha
    if attacking > federation.task.tolerated(members):
        who = f"{attacking} of {count(members, 'agent')} attack{'s' * (attacking == 1)}"
        if attacking == members:
            who = f"all {members} agents attack" if members > 1 else "the only agent attacks"
        typer.echo(
            f"fedpg: {who}, more than the fraction α = {alpha:g} that is tolerated: the filter promises nothing here",
            err=True,
        )
