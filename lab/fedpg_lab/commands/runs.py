"""The command `fedpg runs`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedpg_lab.runs.states import State
from fedpg_lab.terminal.formats import Format


class Key(StrEnum):
    """What a listing is sorted by."""

    CHANGED = "changed"
    RUN = "run"
    STATE = "state"
    TASK = "task"
    ALGORITHM = "algorithm"
    AGENTS = "agents"
    BYZANTINE = "byzantine"
    ATTACK = "attack"
    SEED = "seed"
    ROUNDS = "rounds"
    TRAJECTORIES = "trajectories"
    RETURN = "final_return"
    BEST = "best_return"


def runs_command(
    folder: Annotated[Path, typer.Argument(help="A folder with run folders at any depth.")] = Path("runs"),
    state: Annotated[list[State] | None, typer.Option(help="Only runs in this state; repeat for several.")] = None,
    task: Annotated[str | None, typer.Option(help="Only runs of this task.", metavar="TASK")] = None,
    algorithm: Annotated[str | None, typer.Option(help="Only runs of this algorithm.", metavar="NAME")] = None,
    attack: Annotated[
        str | None, typer.Option(help="Only runs with this attack; none: without attackers.", metavar="NAME")
    ] = None,
    sort: Annotated[Key, typer.Option(help="By which field.")] = Key.CHANGED,
    reverse: Annotated[bool, typer.Option("--reverse", help="The newest, or the largest, first.")] = False,
    format_: Annotated[Format, typer.Option("--format", help="For people or for programs.")] = Format.TABLE,
) -> None:
    """List the runs below a folder: state, task, algorithm, agents, attack, progress and return.

    A run is `live` (a server holds it), `unfinished`, `failed` (resume both with `fedpg train --resume`), `finished`,
    or `unreadable`: damaged, or of another program. `return` is the mean evaluation return over the last 5 % of the
    trajectories, `best` that of the best round, `changed` when the store was last written.

    The run that changed last stands last; `--sort run` sorts by path. A narrow terminal shows fewer columns and says
    which are missing; a pipe gets them all.

    For example:

        fedpg runs runs --state unfinished --state failed
        fedpg runs runs --task CartPole-v1 --sort final_return --reverse

    Exit codes: 0 listed, also where there is nothing to list; 2 bad option; 6 the folder cannot be read.
    """
    from fedpg_lab.runs.listing_table import show_runs

    wanted = {"task": task, "algorithm": algorithm, "attack": attack}
    show_runs(folder, state or [], wanted, sort.value, reverse=reverse, as_json=format_ is Format.JSON)
