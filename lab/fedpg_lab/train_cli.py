"""The command `fedpg train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from fedpg_client.attacks import build_attacker
from fedpg_common.catalogue import ALGORITHMS
from fedpg_common.errors import UsageError
from fedpg_common.federation import SEED_MAX, Federation, name_of
from fedpg_common.federation_options import Description, federation_options
from fedpg_common.files import shown
from fedpg_common.learning.aggregators import build_aggregator, check_federation
from fedpg_common.modules import make_importable
from fedpg_common.options import refuse_ignored_options
from fedpg_server.observers import OBSERVER, chosen_observers
from rich.console import Console

from fedpg_lab.one_run import say, train_one
from fedpg_lab.resume import resume_runs
from fedpg_lab.runs import PLOT_NAME
from fedpg_lab.train import TrainOptions, new_folder, plot_seeds

TAKEN_BY_RESUME = ("resume", "trajectories", "agents_per_process", "tensorboard", "observer")
"""The options that mean something to a run which has its description already."""


@federation_options(file=True)
def train_command(
    described: Description,
    *,
    runs: Annotated[int, typer.Option(help="Repeat with this many consecutive seeds, everything fresh.")] = 1,
    name: Annotated[str | None, typer.Option(help="Name of the run folder.", show_default="made up")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
    agents_per_process: Annotated[int, typer.Option(help="Agents that share a process.", min=1)] = 1,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard files.")] = True,
    observer: Annotated[list[str] | None, OBSERVER] = None,
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
    options = TrainOptions(agents_per_process, chosen_observers(tensorboard, observer or ()))
    if resume is not None:
        refuse_ignored_options(described.context, TAKEN_BY_RESUME)
        resume_runs(resume, described.typed("trajectories"), options, console)
        return
    federation = described.federation()
    check_parts(federation)
    if described.drew_seed:
        console.print(f"Seed {federation.seed}, drawn at random.", highlight=False)
    if not 1 <= runs <= SEED_MAX - federation.seed:
        raise UsageError(f"--runs must be at least 1, not {runs}")
    folder = new_folder(out, name, name_of(federation))
    if runs == 1:
        train_one(federation, folder, options, console)
        return
    done = []
    for offset in range(runs):
        one = dataclasses.replace(federation, seed=federation.seed + offset)
        done.append(train_one(one, folder / f"seed-{one.seed}", options, console))
    plot_seeds(done, folder)
    say(console, f"All seeds in one picture: {shown(folder / PLOT_NAME)}")


def check_parts(federation: Federation) -> None:
    """Raise UsageError now for what the server would refuse to build, so that no run folder is made for it."""
    make_importable(federation)
    algorithm = ALGORITHMS.find(federation.algorithm.name)
    chosen = federation.aggregator
    if chosen is not None:
        trusts_itself = hasattr(algorithm, "reference_gradient")
        check_federation(build_aggregator(chosen), chosen, federation.task, federation.agents, trusts_itself)
    for attack in federation.byzantine.values():
        build_attacker(attack)
