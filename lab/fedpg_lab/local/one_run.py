"""One run of `fedpg train`, with a sentence on how it ended."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer
from fedpg_common.cli.ending import code_of, unwinding
from fedpg_common.federation import Federation
from fedpg_common.files import exists
from fedpg_common.words import count, on_one_line
from fedpg_server.learning.records import best_return
from fedpg_server.storage.store import STORE_NAME
from rich.console import Console

from fedpg_lab.local.children import kill_children
from fedpg_lab.local.train import TrainOptions, train
from fedpg_lab.runs.folders import PLOT_NAME, RunData, final_return
from fedpg_lab.runs.no_gradient import describe_no_gradient


def train_one(
    federation: Federation,
    folder: Path,
    options: TrainOptions,
    console: Console,
    *,
    resume: bool = False,
    trajectories: int | None = None,
    title: str = "",
) -> RunData:
    """Start or resume a run and say how it ended. Raises FedPGError, typer.Exit after Ctrl-C and SIGTERM."""
    with unwinding(hurry=kill_children) as signals:
        try:
            run = train(federation, folder, options, console, resume, trajectories, title)
        except (KeyboardInterrupt, SystemExit):
            if not signals:
                raise
            say(console, f"Interrupted. {_way_on(folder)}")
            raise typer.Exit(code_of(signals)) from None
    say_done(run, console)
    return run


def _way_on(folder: Path) -> str:
    """What to do after Ctrl-C: there is a run to resume once its store is made."""
    if not exists(folder / STORE_NAME):
        return "The run had not begun: nothing is left of it."
    return f"Resume it with: {shlex.join(['fedpg', 'train', '--resume', str(folder)])}"


def say_done(run: RunData, console: Console) -> None:
    """What a run came to. The final return is a mean, so that the last round's and the best stand beside it."""
    value = final_return(run)
    final = "none" if value is None else f"{value:.1f} (mean of the last 5 %)"
    best = best_return(run.records)
    seconds = sum(record.seconds for record in run.records)
    say(
        console,
        f"Done: final return {final}, last {run.records[-1].evaluation_return:.1f}"
        + ("" if best is None else f", best {best:.1f}"),
    )
    say(console, f"{count(len(run.records), 'round')} in {seconds:.0f} s; picture: {run.folder / PLOT_NAME}")
    warning = describe_no_gradient(run)
    if warning is not None:
        say(console, warning)


def say(console: Console, text: str) -> None:
    """Print a line as it is, on one line however long it is."""
    console.print(on_one_line(text), soft_wrap=True)
