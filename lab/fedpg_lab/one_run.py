"""One run of `fedpg train`, with a sentence on how it ended."""

from __future__ import annotations

import signal
from pathlib import Path

import typer
from fedpg_common.errors import ExitCode
from fedpg_common.federation import Federation
from fedpg_common.files import exists, shown
from fedpg_server.store import STORE_NAME
from rich.console import Console

from fedpg_lab.runs import PLOT_NAME, RunData, final_return
from fedpg_lab.train import TrainOptions, train


def train_one(
    federation: Federation,
    folder: Path,
    options: TrainOptions,
    console: Console,
    resume: bool = False,
    trajectories: int | None = None,
) -> RunData:
    """Start or resume a run and say how it ended. Raises FedPGError, typer.Exit after Ctrl-C and SIGTERM."""
    before = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        run = train(federation, folder, options, console, resume, trajectories)
    except (KeyboardInterrupt, SystemExit) as stop:
        if exists(folder / STORE_NAME):
            say(console, f"Interrupted. Resume it with: fedpg train --resume {shown(folder)}")
        else:
            say(console, "Interrupted before the run had begun: nothing is left of it.")
        terminated = isinstance(stop, SystemExit)
        raise typer.Exit(ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    say_done(run, console)
    return run


def say_done(run: RunData, console: Console) -> None:
    """What a run came to. The final return is a mean, so that the last round's stands beside it."""
    value, last = final_return(run), run.records[-1].evaluation_return
    rounds, seconds = len(run.records), sum(record.seconds for record in run.records)
    say(
        console,
        f"Done: final return {value:.1f} (mean over the last 5 % of the trajectories; last round {last:.1f}) "
        f"after {rounds} round{'s' * (rounds != 1)} in {seconds:.0f} s; see {shown(run.folder / PLOT_NAME)}",
    )


def say(console: Console, text: str) -> None:
    """Print a line as it is: a path's brackets are not markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def raise_terminated(_number: int, _frame: object) -> None:
    """SIGTERM ends a run as cleanly as Ctrl-C."""
    raise SystemExit(ExitCode.TERMINATED)
