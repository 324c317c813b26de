"""What a matrix of rules and attacks came to: cells, each rule's worst attack, and which of its settings counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from fedpg_lab.experiments.matrix_parts import Matrix, Row, Variant
from fedpg_lab.runs.folders import RunData, final_return, summarize, trajectories_to_reach
from fedpg_lab.runs.no_gradient import LONE_FROM

FORMAT = 1
"""Of matrix.json; docs/robustness.md describes it."""


@dataclass(frozen=True)
class Outcome:
    """What one run came to, as far as it has."""

    folder: str | None = None
    """Relative to the experiment's folder, with slashes; None if the run has not begun."""
    final: float | None = None
    """Final return; None until the run is complete, NaN if it is then no number."""
    reached: int | None = None
    """Trajectories until the threshold; None if it never was reached, or the run is not complete."""
    accepted_honest: float | None = None
    accepted_byzantine: float | None = None
    without_gradient: float | None = None
    """Part of its rounds in which no gradient survived; None until the run is complete."""

    @property
    def is_complete(self) -> bool:
        """Whether there is a final return."""
        return self.final is not None


NOT_BEGUN = Outcome()


def outcome_of(run: RunData, folder: Path, threshold: float | None) -> Outcome:
    """What a run of the experiment in `folder` came to."""
    name = run.folder.relative_to(folder).as_posix()
    if not run.is_complete:
        return Outcome(name)
    final = final_return(run)
    summary = summarize(run)
    return Outcome(
        folder=name,
        final=math.nan if final is None else final,
        reached=None if threshold is None else trajectories_to_reach(run, threshold),
        accepted_honest=summary["accepted_fraction_honest"],
        accepted_byzantine=summary["accepted_fraction_byzantine"],
        without_gradient=summary["rounds_without_gradient"] / summary["rounds"],
    )


Outcomes = Mapping[str, Outcome]
"""By the name of the planned run, FEDERATION/seed-S."""


@dataclass(frozen=True)
class Cell:
    """A rule under an attack, or undisturbed."""

    row: str
    column: str | None
    """None: undisturbed."""
    seeds: tuple[int, ...]
    outcomes: tuple[Outcome, ...]
    """By seed."""

    @property
    def finals(self) -> list[float]:
        """The final returns of complete runs."""
        return [outcome.final for outcome in self.outcomes if outcome.final is not None]

    @property
    def mean(self) -> float | None:
        """Over complete runs; NaN if one of them has none."""
        return fmean(self.finals) if self.finals else None

    @property
    def worst(self) -> float | None:
        """The least final return; NaN counts as the least of all."""
        return min(self.finals, key=rank, default=None)

    @property
    def worst_seed(self) -> int | None:
        """Whose it is."""
        done = [(rank(outcome.final), seed) for outcome, seed in zip(self.outcomes, self.seeds, strict=True)
                if outcome.final is not None]  # fmt: skip
        return min(done)[1] if done else None

    @property
    def is_lone(self) -> bool:
        """Whether the server of one of the runs learned without the agents: that return is not the rule's."""
        return any((outcome.without_gradient or 0.0) > LONE_FROM for outcome in self.outcomes)

    @property
    def reached(self) -> list[int]:
        """Trajectories until the threshold, of the runs that reached it."""
        return [outcome.reached for outcome in self.outcomes if outcome.reached is not None]

    def accepted(self, *, byzantine: bool) -> float | None:
        """Part of the votes that had a weight, mean over seeds; None where the rule selects nobody."""
        parts = [o.accepted_byzantine if byzantine else o.accepted_honest for o in self.outcomes]
        known = [part for part in parts if part is not None]
        return fmean(known) if known else None


@dataclass(frozen=True)
class RowResult:
    """A rule with the settings that count."""

    name: str
    setting: str
    """Which of several; empty for an only one."""
    undisturbed: Cell
    cells: tuple[Cell, ...]
    """By column."""

    @property
    def worst_attack(self) -> Cell | None:
        """The cell with the least mean, of those with a complete run."""
        done = [cell for cell in self.cells if cell.finals]
        return min(done, key=lambda cell: rank(cell.mean), default=None)

    @property
    def worst_run(self) -> Cell | None:
        """The cell with the least single final return."""
        done = [cell for cell in self.cells if cell.finals]
        return min(done, key=lambda cell: rank(cell.worst), default=None)

    @property
    def is_complete(self) -> bool:
        """Whether all of its runs are."""
        return all(outcome.is_complete for cell in (self.undisturbed, *self.cells) for outcome in cell.outcomes)


@dataclass(frozen=True)
class MatrixResult:
    """A matrix, filled in as far as there are runs."""

    matrix: Matrix
    seeds: tuple[int, ...]
    rows: tuple[RowResult, ...]

    @property
    def chosen(self) -> dict[str, str]:
        """The settings that were chosen, by row, where there were several."""
        return {row.name: row.setting for row in self.rows if row.setting}


def rank(value: float | None) -> float:
    """For comparing returns: what is not a number is worse than any."""
    return -math.inf if value is None or math.isnan(value) else value


def result_of(matrix: Matrix, seeds: Sequence[int], outcomes: Outcomes) -> MatrixResult:
    """The matrix with these outcomes. Of a row with several settings the one counts whose worst attack is the best.

    Settings are compared under the attacks, and with the seeds, for which each of them has a complete run.
    """
    rows = []
    for row in matrix.rows:
        filled = [_fill(matrix, row, variant, tuple(seeds), outcomes) for variant in row.variants]
        rows.append(max(filled, key=lambda result: _worst_in_common(result, filled)))  # the first of equals
    return MatrixResult(matrix, tuple(seeds), tuple(rows))


def begun(result: MatrixResult) -> tuple[MatrixResult, list[str]]:
    """The rows and columns of which a run is complete, for pictures and tables; and the names of the others.

    All rows as long as there is no such run, and all columns as long as none has one.
    """
    columns = [name for place, name in enumerate(result.matrix.columns)
               if any(row.cells[place].finals for row in result.rows)]  # fmt: skip
    columns = columns or list(result.matrix.columns)
    rows = [row for row in result.rows if any(cell.finals for cell in (row.undisturbed, *row.cells))]
    if not rows:
        return result, []
    kept = tuple(replace(row, cells=tuple(cell for cell in row.cells if cell.column in columns)) for row in rows)
    names = {row.name for row in rows}
    planned = tuple(row for row in result.matrix.rows if row.name in names)
    missing = [row.name for row in result.rows if row.name not in names]
    missing += [name for name in result.matrix.columns if name not in columns]
    return replace(result, matrix=replace(result.matrix, rows=planned, columns=tuple(columns)), rows=kept), missing


def _fill(matrix: Matrix, row: Row, variant: Variant, seeds: tuple[int, ...], outcomes: Outcomes) -> RowResult:
    def cell(column: str | None, federation: str) -> Cell:
        runs = tuple(outcomes.get(f"{federation}/seed-{seed}", NOT_BEGUN) for seed in seeds)
        return Cell(row.name, column, seeds, runs)

    cells = tuple(cell(column, variant.attacked[column]) for column in matrix.columns)
    return RowResult(row.name, variant.label, cell(None, variant.undisturbed), cells)


def _worst_in_common(result: RowResult, all_of_row: Sequence[RowResult]) -> float:
    """The least mean over the runs that every one of the row's settings has completed."""
    means = []
    for place, cell in enumerate(result.cells):
        others = [other.cells[place].outcomes for other in all_of_row]
        finals = [outcome.final for seed, outcome in enumerate(cell.outcomes)
                  if all(outcomes[seed].is_complete for outcomes in others)]  # fmt: skip
        if finals:
            means.append(fmean(rank(final) for final in finals))
    return min(means, default=-math.inf)


def to_plain(result: MatrixResult) -> dict[str, Any]:
    """A matrix as matrix.json has it; numbers that are not finite become null when it is written."""
    matrix = result.matrix
    return {
        "task": matrix.example.task.name,
        "K": matrix.example.agents,
        "byzantine": matrix.byzantine,
        "trajectories": matrix.example.task.trajectories,
        "seeds": list(result.seeds),
        "threshold": matrix.threshold,
        "rows": [row.name for row in result.rows],
        "settings": [row.setting for row in result.rows],
        "columns": list(matrix.columns),
        "cells": [_plain_cell(cell) for row in result.rows for cell in row.cells],
        "undisturbed": [_plain_cell(row.undisturbed) for row in result.rows],
        "worst": [_plain_worst(row) for row in result.rows],
    }


def _plain_cell(cell: Cell) -> dict[str, Any]:
    return {
        "row": cell.row,
        "column": cell.column,
        "final_returns": [outcome.final for outcome in cell.outcomes],
        "mean": cell.mean,
        "worst": cell.worst,
        "to_threshold": [outcome.reached for outcome in cell.outcomes],
        "complete": [outcome.is_complete for outcome in cell.outcomes],
        "accepted_honest": cell.accepted(byzantine=False),
        "accepted_byzantine": cell.accepted(byzantine=True),
        "without_gradient": [outcome.without_gradient for outcome in cell.outcomes],
        "runs": [outcome.folder for outcome in cell.outcomes],
    }


def _plain_worst(row: RowResult) -> dict[str, Any] | None:
    attack, run = row.worst_attack, row.worst_run
    if attack is None or run is None:
        return None
    return {
        "row": row.name,
        "column": attack.column,
        "mean": attack.mean,
        "worst": run.worst,
        "worst_column": run.column,
        "worst_seed": run.worst_seed,
    }


def all_cells(result: MatrixResult) -> Iterator[tuple[RowResult, Cell]]:
    """Each row's undisturbed cell, and then its columns'."""
    for row in result.rows:
        for cell in (row.undisturbed, *row.cells):
            yield row, cell
