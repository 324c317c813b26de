"""A listing of runs, as a table or JSON."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import typer
from fedpg_common.json_text import to_json
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from fedpg_lab.runs.folders import how_to_make_runs
from fedpg_lab.runs.listing import RunLine, list_runs, sorted_runs
from fedpg_lab.runs.states import State
from fedpg_lab.terminal.formats import table_lines, width_of_output

LEFT_OUT_FIRST = ("changed", "seed", "best", "rounds", "algorithm")
"""Columns that a narrow terminal does without, in this order, before the paths get lines of their own. Those that the
paths tell already go before them."""
LEFT_OUT_NEXT = ("trajectories", "B", "K", "attack", "return", "task")
"""And after that. The state and the path are always there."""
GAP = 2
INDENT = "  "
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
    "changed": lambda line: _local_time(line.changed),
    "run": lambda line: line.run,
}
FIGURES = ("K", "B", "seed", "rounds", "trajectories", "return", "best")
TOLD: Mapping[str, Callable[[RunLine], bool]] = {
    "task": lambda line: line.task is None or line.task in line.run,
    "algorithm": lambda line: line.algorithm is None or line.algorithm in line.run,
    "K": lambda line: line.agents is None or re.search(rf"_K{line.agents}(?!\d)", line.run) is not None,
    "B": lambda line: not line.byzantine or re.search(rf"_B{line.byzantine}(?!\d)", line.run) is not None,
    "attack": lambda line: line.attack is None or line.attack in line.run,
    "seed": lambda line: line.seed is None or line.run.endswith(f"seed-{line.seed}"),
    "trajectories": lambda line: line.state in (State.FINISHED, State.UNREADABLE),
}
"""Whether a line says without this column what it would say: in its path, as fedpg names folders, or in its state."""


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
    width = width_of_output()
    if lines:
        for text in listing(lines, width):
            typer.echo(text)
    for line in lines:
        if line.note:
            for text in folded(f"{line.run}: {line.note}", width):
                typer.echo(text)
    counts = Counter(line.state.value for line in lines)
    parts = ", ".join(f"{counts[name]} {name}" for name in State if counts[name])
    hidden = f" of {len(found)}" if len(lines) < len(found) else ""
    hint = "" if found else f": {how_to_make_runs(folder)}"
    for text in folded(f"{len(lines)}{hidden} run{'s' * (len(found) != 1)}{': ' * bool(parts)}{parts}{hint}", width):
        typer.echo(text)


def _fits(line: RunLine, wanted: Mapping[str, str | None]) -> bool:
    return all(value is None or (getattr(line, name) or "none") == value for name, value in wanted.items())


def listing(lines: Sequence[RunLine], width: int) -> list[str]:
    """The table in lines of at most `width` columns, and what it leaves out for that.

    Where the paths leave too little room beside them, each stands on a line of its own, whole, so that it can be
    copied: a terminal breaks it where it ends.
    """
    widths = {name: max(cell_len(name), *(cell_len(show(line)) for line in lines)) for name, show in COLUMNS.items()}
    told = [name for name, is_told in TOLD.items() if all(map(is_told, lines))]
    names = _fitting(widths, width, (*LEFT_OUT_FIRST, *told))
    if _width(widths, names) <= width:
        text = table_lines(_table(lines, names))
    else:
        del widths["run"]
        names = _fitting(widths, width, (*LEFT_OUT_FIRST, *LEFT_OUT_NEXT))
        head, *rows = table_lines(_table(lines, names))
        text = [head]
        for row, line in zip(rows, lines, strict=True):
            text += [row, f"{INDENT}{line.run}"]
    missing = [name for name in COLUMNS if name not in (*names, "run")]
    if missing:
        text += folded(f"Not shown: {', '.join(missing)} (in a wider terminal, or with --format json).", width)
    return text


def folded(text: str, width: int) -> list[str]:
    """A sentence in lines of at most `width` columns, broken between words; a longer word, such as a path, is whole."""
    if cell_len(text) <= width:
        return [text]
    return textwrap.wrap(
        text, max(width, len(INDENT) + 1), subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False
    )


def _fitting(widths: Mapping[str, int], width: int, left_out: Sequence[str]) -> list[str]:
    """The columns that fit, without the first so many of `left_out`, or without them all if that does not help."""
    names = list(widths)
    for name in left_out:
        if _width(widths, names) > width and name in names:
            names.remove(name)
    return names


def _width(widths: Mapping[str, int], names: Sequence[str]) -> int:
    return sum(widths[name] for name in names) + GAP * (len(names) - 1)


def _table(lines: Sequence[RunLine], names: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in FIGURES else "left", no_wrap=True)
    for line in lines:
        table.add_row(*(Text(COLUMNS[name](line)) for name in names))
    return table


def _progress(line: RunLine) -> str:
    return "–" if line.trajectories is None else f"{line.trajectories}/{line.trajectories_target}"


def _local_time(moment: str | None) -> str:
    return "–" if moment is None else datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.1f}"
