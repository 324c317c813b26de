"""What a matrix of rules and attacks adds to an experiment's report: heat maps, tables, and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpg_common.words import count

from fedpg_lab.experiments.matrix import Plan
from fedpg_lab.experiments.matrix_file import MatrixFile
from fedpg_lab.experiments.matrix_pictures import (
    Table,
    acceptance_map,
    choices,
    legend,
    mean_of,
    returns_map,
    tables,
    threshold_map,
    to_csv,
    to_markdown,
)
from fedpg_lab.experiments.matrix_results import MatrixResult, RowResult, begun
from fedpg_lab.experiments.plan import Experiment
from fedpg_lab.figures.heat_map import HeatMap, draw_heat_map
from fedpg_lab.figures.parts import save_figure
from fedpg_lab.files.pages import svg_as_data, write_text
from fedpg_lab.runs.folders import RunData

MATRIX_MARKDOWN, MATRIX_CSV = "matrix.md", "matrix.csv"
CAPTIONS = {
    "returns": "Mean over seeds of the final return (over the last 5 % of the trajectories), and the least of the "
    "seeds. Framed: the rule's worst attack, whose column stands at the end.",
    "threshold": "Mean over the seeds that got there of the first round at or above this return; where not all did, "
    "how many. What never gets there is coloured as if it did at the end.",
    "accepted": "How many of the attackers' votes had a weight, and how many of the honest ones, in %. Rules that "
    "select nobody have no row.",
}


@dataclass(frozen=True)
class Section:
    """The part of the page on one matrix."""

    title: str
    pictures: list[tuple[str, str]]
    """Caption, and the picture as a link that holds it."""
    remarks: list[str]
    """Sentences on settings that were chosen, and on what is missing."""
    tables: list[tuple[str, Table]]


def write_matrices(experiment: Experiment, plan: Plan, runs: Sequence[RunData], folder: Path) -> list[Section]:
    """Write pictures, tables and matrix.json into `folder`: what the page shows of each matrix. Raises StorageError."""
    matrix_file = MatrixFile(experiment, plan, folder)
    by_folder = {run.folder: run for run in runs}
    for planned in experiment.runs:
        run = by_folder.get(folder / planned.name)
        if run is not None:
            matrix_file.note(planned, run)
    matrix_file.write()
    results = matrix_file.results()
    write_text(folder / MATRIX_MARKDOWN, to_markdown([begun(result)[0] for result in results]))
    write_text(folder / MATRIX_CSV, to_csv(results))
    return [_section(result, folder, "" if len(results) == 1 else f"-{number}")
            for number, result in enumerate(results, start=1)]  # fmt: skip


def _section(whole: MatrixResult, folder: Path, suffix: str) -> Section:
    result, missing = begun(whole)
    maps: dict[str, HeatMap | None] = {
        "returns": returns_map(result),
        "threshold": None if result.matrix.threshold is None else threshold_map(result),
        "accepted": acceptance_map(result),
    }
    pictures = []
    for name, heat_map in maps.items():
        if heat_map is not None:
            _, svg = save_figure(draw_heat_map(heat_map), folder / f"matrix-{name}{suffix}.svg")
            pictures.append((CAPTIONS[name], svg_as_data(svg)))
    sentences = [*choices(result), *legend(result)]
    if missing:
        sentences.append(f"Nothing is complete yet of: {', '.join(missing)}.")
    return Section(result.matrix.title, pictures, sentences, tables(result))


def describe_row(row: RowResult) -> str:
    """A rule in a line: "krum: undisturbed 498, worst of 7 attacks boundary 9"; empty without a complete run."""
    parts = []
    if row.undisturbed.mean is not None:
        parts.append(f"undisturbed {mean_of(row.undisturbed)}")
    worst = row.worst_attack
    if worst is not None and worst.mean is not None:
        parts.append(f"worst{_of_how_many(row)} {worst.column} {mean_of(worst)}")
    setting = f" ({row.setting})" if row.setting else ""
    return f"{row.name}{setting}: {', '.join(parts)}" if parts else ""


def _of_how_many(row: RowResult) -> str:
    """Of how many attacks a rule's worst one is the worst: of those that were run."""
    planned, done = len(row.cells), sum(bool(cell.finals) for cell in row.cells)
    if done < planned:
        return f" of the {count(done, 'attack')} run (of {planned})"
    return f" of {count(planned, 'attack')}" if planned > 1 else ""
