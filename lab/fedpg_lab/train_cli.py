"""The command `fedpg train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from fedpg_common.command_line import complete
from fedpg_common.ending import unwinding
from fedpg_common.errors import UsageError
from fedpg_common.federation import ATTACKS_HELP, SEED_MAX, Algorithm, Attack, Federation, Hostility, describe, name_of
from fedpg_common.options import refuse_ignored_options
from fedpg_common.tasks import TASKS
from fedpg_common.words import count, on_one_line

TAKEN_BY_RESUME = ("resume", "trajectories", "agents_per_process", "tensorboard")
"""The options that mean something to a run which has its description already."""
ALGORITHMS = [algorithm.value for algorithm in Algorithm]
ATTACK_CHOICES = [member.value for kind in (Attack, Hostility) for member in kind]


def train_command(
    context: typer.Context,
    task: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(TASKS)}, or a task file (NAME.toml).", metavar="TASK", autocompletion=complete(TASKS)
        ),
    ] = "CartPole-v1",
    agents: Annotated[int, typer.Option(help="How many agents, K.", metavar="K")] = 10,
    byzantine: Annotated[int, typer.Option(help="How many of them attack: agents 1 to N.", metavar="N")] = 0,
    attack: Annotated[
        str,
        typer.Option(help=f"What they do: {ATTACKS_HELP}.", metavar="ATTACK", autocompletion=complete(ATTACK_CHOICES)),
    ] = Attack.RANDOM_NOISE.value,
    algorithm: Annotated[
        str, typer.Option(help=f"{', '.join(ALGORITHMS)}.", metavar="NAME", autocompletion=complete(ALGORITHMS))
    ] = Algorithm.FEDPG_BR.value,
    trajectories: Annotated[
        int | None, typer.Option(help="Trajectory count at which the run ends.", metavar="N", show_default="task's")
    ] = None,
    seed: Annotated[int, typer.Option(help="Every random draw follows from it.", metavar="N")] = 0,
    runs: Annotated[
        int, typer.Option(help="Repeat with this many consecutive seeds, everything fresh.", metavar="N")
    ] = 1,
    name: Annotated[
        str | None, typer.Option(help="Name of the run folder.", metavar="NAME", show_default="made up")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.", metavar="FOLDER")] = Path("runs"),
    sigma: Annotated[float | None, typer.Option(help="σ of the filter.", metavar="X", show_default="task's")] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Tolerated faulty fraction.", metavar="X", show_default="task's")
    ] = None,
    round_timeout: Annotated[
        float, typer.Option(help="Seconds after which a round closes with a quorum.", metavar="S")
    ] = 120.0,
    agents_per_process: Annotated[int, typer.Option(help="Agents that share a process.", metavar="N", min=1)] = 1,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard files.", metavar="")] = True,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Resume the run in this folder, or all unfinished seeds of it; with --trajectories, until there.",
            metavar="FOLDER",
        ),
    ] = None,
) -> None:
    """Train a policy: one server and K agents as processes on this machine, over gRPC.

    The run folder gets the store (run.sqlite), config.toml, summary.json, returns.png, checkpoints, TensorBoard files
    and a log for each process. Ctrl-C ends a run cleanly; --resume continues it. A finished run continues with
    `--resume FOLDER --trajectories N`, and is then the run that N from the start would have been.

    Exit codes: 0 done; 2 bad option; 5 an address cannot be used; 6 a folder or store cannot be used; 130 Ctrl-C;
    143 terminated.
    """
    if resume is not None:
        refuse_ignored_options(context, TAKEN_BY_RESUME)
        from fedpg_lab.console import make_console
        from fedpg_lab.resume import resume_runs
        from fedpg_lab.train import TrainOptions

        options = TrainOptions(agents_per_process, tensorboard)
        resume_runs(resume, trajectories, options, make_console(stderr=True))
        return
    federation = describe(
        task,
        agents=agents,
        byzantine=byzantine,
        attack=attack,
        algorithm=algorithm,
        seed=seed,
        round_timeout_s=round_timeout,
        trajectories=trajectories,
        sigma=sigma,
        alpha=alpha,
    )
    if not 1 <= runs <= SEED_MAX - seed:
        raise UsageError(f"--runs must be 1 to {SEED_MAX - seed} with --seed {seed}, not {runs}")
    warn_of_too_many(federation)
    _train_seeds(federation, runs, out, name, agents_per_process, tensorboard)


def _train_seeds(
    federation: Federation, runs: int, out: Path, name: str | None, agents_per_process: int, tensorboard: bool
) -> None:
    """One run, or one for each of so many consecutive seeds."""
    from fedpg_lab.console import make_console
    from fedpg_lab.one_run import train_one
    from fedpg_lab.runs import PLOT_NAME
    from fedpg_lab.train import TrainOptions, new_folder, plot_seeds

    console, options = make_console(stderr=True), TrainOptions(agents_per_process, tensorboard)
    folder = new_folder(out, name, name_of(federation))
    if runs == 1:
        train_one(federation, folder, options, console)
        return
    done = []
    for number in range(1, runs + 1):
        one = dataclasses.replace(federation, seed=federation.seed + number - 1)
        title = f"{folder.name} seed {one.seed} ({number} of {runs})"
        done.append(train_one(one, folder / f"seed-{one.seed}", options, console, title=title))
    with unwinding():
        plot_seeds(done, folder)
    console.print(on_one_line(f"All seeds in one picture: {folder / PLOT_NAME}"), soft_wrap=True)


def warn_of_too_many(federation: Federation) -> None:
    """Say so if more agents attack than the filter is made for."""
    attacking, members, alpha = len(federation.byzantine), federation.agents, federation.task.alpha
    if attacking > alpha * members + 1e-9:
        typer.echo(
            f"fedpg: {attacking} of {count(members, 'agent')} attack{'s' * (attacking == 1)}, more than the fraction "
            f"α = {alpha:g} that is tolerated: the filter promises nothing here",
            err=True,
        )
