"""A listing of runs, as a table or JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import typer
from fedpg_common.json_text import to_json
from rich.table import Table
from rich.text import Text

from fedpg_lab.runs.listing import RunLine, list_runs, sorted_runs
from fedpg_lab.runs.states import State
from fedpg_lab.terminal.console import make_console
from fedpg_lab.terminal.formats import print_table

WIDE = 110
"""Columns of a terminal from which all fields are shown."""
NARROW_LEAVES_OUT = ("algorithm", "seed", "rounds", "trajectories", "best")
COLUMNS: Mapping[str, Callable[[RunLine], str]] = {
    "state": lambda line: line.state.value,
    "task": lambda line: line.task or "–",
    "algorithm": lambda line: line.algorithm or "–",
    "K": lambda line: _number(line.agents),
    "B": lambda line: _number(line.byzantine),
    "attack": lambda line: line.attack or "–",
    "seed": lambda line: _number(line.seed),
    "rounds": lambda line: _number(line.rounds),
    "trajectories": lambda line: _progress(line),
    "return": lambda line: _number(line.final_return),
    "best": lambda line: _number(line.best_return),
    "run": lambda line: line.run,
}
FIGURES = ("K", "B", "seed", "rounds", "trajectories", "return", "best")


def show_runs(
    folder: Path,
    states: Sequence[State],
    wanted: Mapping[str, str | None],
    sort: str,
    *,
    reverse: bool,
    as_json: bool,
) -> None:
    """Print the runs below a folder that are in one of these states, if any are given, and have the fields wanted.

    Raises StorageError.
    """
    found = list_runs(folder)
    lines = [line for line in found if (not states or line.state in states) and _fits(line, wanted)]
    lines = sorted_runs(lines, sort, reverse)
    if as_json:
        typer.echo(to_json([dataclasses.asdict(line) for line in lines], indent=2))
        return
    if lines:
        print_table(_table(lines))
    for line in lines:
        if line.note:
            typer.echo(f"{line.run}: {line.note}")
    counts = Counter(line.state.value for line in lines)
    parts = ", ".join(f"{counts[name]} {name}" for name in State if counts[name])
    hidden = f" of {len(found)}" if len(lines) < len(found) else ""
    typer.echo(f"{len(lines)}{hidden} run{'s' * (len(found) != 1)}{': ' * bool(parts)}{parts}")


def _fits(line: RunLine, wanted: Mapping[str, str | None]) -> bool:
    return all(value is None or (getattr(line, name) or "none") == value for name, value in wanted.items())


def _table(lines: Sequence[RunLine]) -> Table:
    console = make_console()
    narrow = console.is_terminal and console.width < WIDE
    table = Table(box=None, padding=(0, 2, 0, 0))
    names = [name for name in COLUMNS if not (narrow and name in NARROW_LEAVES_OUT)]
    for name in names:
        is_path = name == "run"
        table.add_column(
            name, justify="right" if name in FIGURES else "left", overflow="fold", no_wrap=not is_path,
            min_width=12 if is_path else None,
        )  # fmt: skip
    for line in lines:
        table.add_row(*(Text(COLUMNS[name](line)) for name in names))
    return table


def _progress(line: RunLine) -> str:
    return "–" if line.trajectories is None else f"{line.trajectories}/{line.trajectories_target}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.1f}"
