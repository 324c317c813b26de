"""An experiment's results: figures, the table, and one HTML page that holds them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fedpg_common.tasks import task_to_fields
from matplotlib.figure import Figure

from fedpg_lab.experiments.matrix_page import write_matrices
from fedpg_lab.experiments.plan import Experiment
from fedpg_lab.figures.comparison import draw_filter, draw_returns, is_filtering
from fedpg_lab.figures.curves import Group, group_runs
from fedpg_lab.figures.distances import DISTANCE_PANELS_MAX, draw_distances, has_distances
from fedpg_lab.figures.parts import save_figure
from fedpg_lab.figures.published import source
from fedpg_lab.figures.scaling import draw_scaling, has_scales
from fedpg_lab.figures.tables import COSTS, RESULTS, cells, row_of, to_csv, to_markdown
from fedpg_lab.files.pages import svg_as_data, template, write_text
from fedpg_lab.machine import machine
from fedpg_lab.runs.folders import RunData, final_return

REPORT_NAME, MARKDOWN_NAME, CSV_NAME = "report.html", "table.md", "table.csv"
SMOOTHING_ROUNDS = 5
DIGEST_SHOWN = 12
"""Digits of a parameter digest that the page shows."""


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    name: str
    """Its file's name without suffix."""
    caption: str
    figure: Figure


def write_report(experiment: Experiment, runs: Sequence[RunData], folder: Path, command: str, now: datetime) -> Path:
    """Write figures (PNG, SVG), table (Markdown, CSV) and page into `folder`, and return the page's path.

    `runs` have a round each at least, and are those of the experiment that there are. `command` repeats them. Raises
    StorageError.
    """
    groups = group_runs(runs)
    rows = [row_of(group) for group in groups]
    sections = [] if experiment.plan is None else write_matrices(experiment, experiment.plan, runs, folder)
    # A matrix has too many federations for curves: it has heat maps instead.
    pictures = [(picture, svg_as_data(save_figure(picture.figure, folder / f"{picture.name}.svg")[1]))
                for picture in (pictures_of(groups) if experiment.plan is None else ())]  # fmt: skip
    page = template("fedpg_lab.experiments", "report_page.html").render(
        experiment=experiment,
        complete=sum(run.is_complete for run in runs),
        results=cells(rows, RESULTS),
        costs=cells(rows, COSTS),
        pictures=pictures,
        matrices=sections,
        runs=[_run_line(run, folder) for run in runs],
        settings=_settings(groups),
        machine=machine(),
        command=command,
        source=source(),
        has_published=any(row.published for row in rows),
        now=now.strftime("%Y-%m-%d %H:%M"),
    )
    for name, text in ((REPORT_NAME, page), (MARKDOWN_NAME, to_markdown(rows)), (CSV_NAME, to_csv(rows))):
        write_text(folder / name, text)
    return folder / REPORT_NAME


def pictures_of(groups: Sequence[Group]) -> list[Picture]:
    """The figures that these groups give occasion for."""
    window = SMOOTHING_ROUNDS
    pictures = [
        Picture(
            "figure",
            f"Evaluation return of the greedy policy, centred mean over {window} rounds; mean and 90 % interval over "
            "seeds. Marks are published points, where there are any.",
            draw_returns(groups, honest=False, window=window),
        ),
        Picture(
            "figure-honest",
            "The same against what all agents and the server have sampled together. Trajectories per participant, "
            "above, count a round of many agents about like a round of one.",
            draw_returns(groups, honest=True, window=window),
        ),
    ]
    if has_scales(groups):
        for honest, name in ((False, "scaling"), (True, "scaling-honest")):
            figure = draw_scaling(groups, target=None, honest=honest)
            counted = "sampled by all together" if honest else "per participant"
            caption = (
                f"Trajectories, {counted}, until the mean over seeds first reaches a return, against the agents K."
            )
            pictures.append(Picture(name, caption, figure))
    attacked = [group for group in groups if group.federation.byzantine]
    filtering = [group for group in groups if is_filtering(group)]
    if any(group in filtering for group in attacked):
        caption = (
            "The filter, centred mean over ten rounds: precision (of the filtered, how many are Byzantine), recall (of "
            "the Byzantine, how many are filtered), and how many of the honest agents' gradients are accepted."
        )
        pictures.append(Picture("filter", caption, draw_filter(filtering, honest=False, window=10)))
    shown = [group for group in filtering if group.federation.agents > 1 and has_distances(group)]
    if 0 < len(shown) <= DISTANCE_PANELS_MAX:
        caption = (
            "Distance of each agent's gradient to the median vector, or to μ, and the radius of the rule that decided, "
            "for the first seed of each federation."
        )
        pictures.append(Picture("distances", caption, draw_distances(shown, honest=False)))
    return pictures


def _run_line(run: RunData, folder: Path) -> dict[str, Any]:
    final = final_return(run)
    return {
        "name": str(run.folder.relative_to(folder)) if run.folder.is_relative_to(folder) else str(run.folder),
        "final": "–" if final is None else f"{final:.1f}",
        "rounds": len(run.records),
        "trajectories": f"{run.records[-1].trajectories_total:,}",
        "seconds": f"{sum(record.seconds for record in run.records):,.0f}",
        "complete": run.is_complete,
        "digest": run.records[-1].parameters_digest[:DIGEST_SHOWN],
    }


def _settings(groups: Sequence[Group]) -> list[tuple[str, dict[str, Any]]]:
    """The settings of each task that occur, each set of them once."""
    tasks: dict[tuple[str, str], dict[str, Any]] = {}
    for group in groups:
        task = group.federation.task
        fields = task_to_fields(task)
        tasks.setdefault((task.name, repr(fields)), fields)
    return [(name, fields) for (name, _), fields in tasks.items()]
