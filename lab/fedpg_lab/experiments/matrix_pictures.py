"""A matrix of rules and attacks as heat maps, and as tables in Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from fedpg_lab.experiments.matrix_results import Cell, MatrixResult, RowResult, all_cells
from fedpg_lab.figures.heat_map import HeatMap, Shade, column_block
from fedpg_lab.figures.tables import plain_cell
from fedpg_lab.runs.no_gradient import LONE, LONE_MEANS

UNDISTURBED, WORST_ATTACK, WORST_RUN = "undisturbed", "worst attack", "worst single run"
NOTHING = Shade(None, "–")
Table = tuple[list[str], list[list[str]]]
"""A header, and a list of texts for each row."""


def returns_map(result: MatrixResult) -> HeatMap:
    """Final returns, the worst case at each row's end."""
    lines = [[_marked(_final(cell), cell is row.worst_attack) for cell in row.cells] for row in result.rows]
    worst = [[_final_of_worst(row), _final_of_worst_run(row)] for row in result.rows]
    return HeatMap(
        title=f"Final return: {result.matrix.title}",
        rows=tuple(row.name for row in result.rows),
        blocks=(
            column_block([UNDISTURBED], [[_final(row.undisturbed)] for row in result.rows]),
            column_block(result.matrix.columns, lines),
            column_block([WORST_ATTACK, WORST_RUN], worst),
        ),
        scale="final return, mean over seeds",
    )


def threshold_map(result: MatrixResult) -> HeatMap:
    """Trajectories until the threshold, the slowest attack at each row's end; what never gets there counts in full."""
    matrix = result.matrix
    slowest = [max((_until(matrix.example.task.trajectories, cell) for cell in row.cells),
                   key=lambda shade: -1.0 if shade.value is None else shade.value) for row in result.rows]  # fmt: skip
    return HeatMap(
        title=f"Trajectories until {matrix.threshold:g}: {matrix.title}",
        rows=tuple(row.name for row in result.rows),
        blocks=(
            column_block([UNDISTURBED], [[_until(matrix.example.task.trajectories, row.undisturbed)]
                                         for row in result.rows]),
            column_block(matrix.columns, [[_until(matrix.example.task.trajectories, cell) for cell in row.cells]
                                          for row in result.rows]),
            column_block(["slowest attack"], [[shade] for shade in slowest]),
        ),
        scale="trajectories per participant",
        low_is_good=True,
        high=float(matrix.example.task.trajectories),
    )  # fmt: skip


def acceptance_map(result: MatrixResult) -> HeatMap | None:
    """Which part of the attackers' votes counted, and of the honest ones; None if no rule selects anybody."""
    selective = [row for row in result.rows if any(cell.accepted(byzantine=False) is not None for cell in row.cells)]
    if not selective:
        return None
    return HeatMap(
        title=f"Attackers' votes that counted: {result.matrix.title}",
        rows=tuple(row.name for row in selective),
        blocks=(column_block(result.matrix.columns, [[_accepted(cell) for cell in row.cells] for row in selective]),),
        scale="of the attackers' votes, %",
        low_is_good=True,
        low=0.0,
        high=100.0,
    )


def _final(cell: Cell) -> Shade:
    mean, worst = cell.mean, cell.worst
    if mean is None or worst is None:
        return NOTHING
    note = f"min {_number(worst)}" if len(cell.finals) > 1 else ""
    return Shade(None if math.isnan(mean) else mean, mean_of(cell), note)


def mean_of(cell: Cell) -> str:
    """The mean final return as text, marked where the rule had no part in it."""
    return f"{_number(_or_nan(cell.mean))}{f' {LONE}' * cell.is_lone}"


def _marked(shade: Shade, is_marked: bool) -> Shade:
    return replace(shade, is_marked=is_marked)


def _final_of_worst(row: RowResult) -> Shade:
    return NOTHING if row.worst_attack is None else _final(row.worst_attack)


def _final_of_worst_run(row: RowResult) -> Shade:
    worst = None if row.worst_run is None else row.worst_run.worst
    return NOTHING if worst is None else Shade(None if math.isnan(worst) else worst, _number(worst))


def _until(trajectories: int, cell: Cell) -> Shade:
    done = len(cell.finals)
    if not done:
        return NOTHING
    mean = fmean([*cell.reached, *[trajectories] * (done - len(cell.reached))])
    text = f"{fmean(cell.reached):,.0f}" if cell.reached else "never"
    return Shade(mean, text, f"{len(cell.reached)} of {done}" if 0 < len(cell.reached) < done else "")


def _accepted(cell: Cell) -> Shade:
    byzantine, honest = cell.accepted(byzantine=True), cell.accepted(byzantine=False)
    if byzantine is None:
        return NOTHING
    return Shade(100 * byzantine, f"{100 * byzantine:.0f}", "" if honest is None else f"honest {100 * honest:.0f}")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}"


def tables(result: MatrixResult) -> list[tuple[str, Table]]:
    """The tables for people, each with its heading."""
    matrix = result.matrix
    found: list[tuple[str, Table]] = [("Final return (least of the seeds)", _final_table(result))]
    if matrix.threshold is not None:
        head = f"Trajectories until {matrix.threshold:g} (seeds that got there)"
        found.append((head, _table(result, lambda cell: _words(_until(matrix.example.task.trajectories, cell)))))
    if any(cell.accepted(byzantine=False) is not None for _, cell in all_cells(result)):
        found.append(("Votes that counted, in %: Byzantine / honest", _table(result, _both_accepted)))
    return found


def _final_table(result: MatrixResult) -> Table:
    header, lines = _table(result, lambda cell: _words(_final(cell)))
    for row, line in zip(result.rows, lines, strict=True):
        attack, run = row.worst_attack, row.worst_run
        worst = "–" if attack is None else f"{mean_of(attack)}: {attack.column}"
        line += [worst, "–" if run is None else f"{_number(_or_nan(run.worst))}: {run.column}, seed {run.worst_seed}"]
    return [*header, WORST_ATTACK, WORST_RUN], lines


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _table(result: MatrixResult, render: Callable[[Cell], str]) -> Table:
    header = ["rule", UNDISTURBED, *result.matrix.columns]
    return header, [[row.name, *(render(cell) for cell in (row.undisturbed, *row.cells))] for row in result.rows]


def _words(shade: Shade) -> str:
    return f"{shade.text} ({shade.note.removeprefix('min ')})" if shade.note else shade.text


def _both_accepted(cell: Cell) -> str:
    parts = [cell.accepted(byzantine=True), cell.accepted(byzantine=False)]
    if all(part is None for part in parts):
        return "–"
    return " / ".join("–" if part is None else f"{100 * part:.0f}" for part in parts)


def to_markdown(results: Sequence[MatrixResult]) -> str:
    """All tables of all matrices, as Markdown."""
    parts = []
    for result in results:
        parts.append(f"## {plain_cell(result.matrix.title)}\n")
        parts += [f"{plain_cell(sentence)}\n" for sentence in choices(result)]
        for heading, (header, body) in tables(result):
            lines = [header, ["---"] * len(header), *body]
            texts = [[plain_cell(text) if text != "---" else text for text in line] for line in lines]
            parts.append(f"### {plain_cell(heading)}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in texts))
        parts += [f"{sentence}\n" for sentence in legend(result)]
    return "\n".join(parts)


def choices(result: MatrixResult) -> list[str]:
    """Which settings were chosen of which, and how: a sentence for each row that has several."""
    sentences = []
    for row, planned in zip(result.rows, result.matrix.rows, strict=True):
        if len(planned.variants) > 1:
            labels = ", ".join(f"“{variant.label}”" for variant in planned.variants)
            sentences.append(
                f"{row.name}: of {labels} this matrix shows “{row.setting}”, whose worst attack is the least bad. It "
                "was chosen on the runs that are shown."
            )
    return sentences


def legend(result: MatrixResult) -> list[str]:
    """What the marks mean that occur in the matrix."""
    return [LONE_MEANS] if any(cell.is_lone for _, cell in all_cells(result)) else []


def to_csv(results: Sequence[MatrixResult]) -> str:
    """A line for each cell and seed, for programs; an empty field where there is nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "K", "byzantine", "trajectories", "threshold", "row", "setting", "column", "seed",
                     "complete", "final_return", "to_threshold", "accepted_honest", "accepted_byzantine",
                     "without_gradient", "worst_of_row", "run"])  # fmt: skip
    for result in results:
        matrix = result.matrix
        for row, cell in all_cells(result):
            is_worst = row.worst_attack is not None and cell.column == row.worst_attack.column
            for seed, outcome in zip(cell.seeds, cell.outcomes, strict=True):
                line: list[Any] = [
                    matrix.example.task.name, matrix.example.agents, matrix.byzantine,
                    matrix.example.task.trajectories, matrix.threshold, row.name, row.setting, cell.column, seed,
                    outcome.is_complete, outcome.final, outcome.reached, outcome.accepted_honest,
                    outcome.accepted_byzantine, outcome.without_gradient, is_worst, outcome.folder,
                ]  # fmt: skip
                writer.writerow(line)
    return text.getvalue()
