"""The command `fedpg train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from fedpg_common.errors import UsageError
from fedpg_common.federation import ATTACKS_HELP, SEED_MAX, Algorithm, Attack, describe, name_of
from fedpg_common.files import shown
from fedpg_common.options import refuse_ignored_options
from fedpg_common.tasks import TASKS
from rich.console import Console

from fedpg_lab.one_run import say, train_one
from fedpg_lab.resume import resume_runs
from fedpg_lab.runs import PLOT_NAME
from fedpg_lab.train import TrainOptions, new_folder, plot_seeds

TAKEN_BY_RESUME = ("resume", "trajectories", "agents_per_process", "tensorboard")
"""The options that mean something to a run which has its description already."""
ALGORITHMS = ", ".join(algorithm.value for algorithm in Algorithm)


def train_command(
    context: typer.Context,
    task: Annotated[
        str, typer.Option(help=f"{', '.join(TASKS)}, or a task file (NAME.toml).", metavar="TASK")
    ] = "CartPole-v1",
    agents: Annotated[int, typer.Option(help="How many agents, K.", metavar="K")] = 10,
    byzantine: Annotated[int, typer.Option(help="How many of them attack: agents 1 to N.", metavar="N")] = 0,
    attack: Annotated[str, typer.Option(help=f"What they do: {ATTACKS_HELP}.")] = Attack.RANDOM_NOISE.value,
    algorithm: Annotated[str, typer.Option(help=f"{ALGORITHMS}.")] = Algorithm.FEDPG_BR.value,
    trajectories: Annotated[
        int | None, typer.Option(help="Trajectory count at which the run ends.", show_default="task's")
    ] = None,
    seed: Annotated[int, typer.Option(help="Every random draw follows from it.")] = 0,
    runs: Annotated[int, typer.Option(help="Repeat with this many consecutive seeds, everything fresh.")] = 1,
    name: Annotated[str | None, typer.Option(help="Name of the run folder.", show_default="made up")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
    sigma: Annotated[float | None, typer.Option(help="σ of the filter.", show_default="task's")] = None,
    alpha: Annotated[float | None, typer.Option(help="Tolerated faulty fraction.", show_default="task's")] = None,
    round_timeout: Annotated[float, typer.Option(help="Seconds after which a round closes with a quorum.")] = 120.0,
    agents_per_process: Annotated[int, typer.Option(help="Agents that share a process.", min=1)] = 1,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard files.")] = True,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Resume the run in this folder, or all unfinished seeds of it; with --trajectories, until there."
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
    console = Console(stderr=True)
    options = TrainOptions(agents_per_process, tensorboard)
    if resume is not None:
        refuse_ignored_options(context, TAKEN_BY_RESUME)
        resume_runs(resume, trajectories, options, console)
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
        raise UsageError(f"--runs must be at least 1, not {runs}")
    folder = new_folder(out, name, name_of(federation))
    if runs == 1:
        train_one(federation, folder, options, console)
        return
    done = []
    for offset in range(runs):
        one = dataclasses.replace(federation, seed=seed + offset)
        done.append(train_one(one, folder / f"seed-{one.seed}", options, console))
    plot_seeds(done, folder)
    say(console, f"All seeds in one picture: {shown(folder / PLOT_NAME)}")
