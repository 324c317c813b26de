"""The paper's figures from runs of one's own: several federations in one picture, over seeds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from fedpg_common.errors import StorageError, UsageError
from fedpg_server.records import RoundRecord
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedpg_lab.curves import Curve, Group, evaluation_return, honest_counts, mean_curve, published_counts
from fedpg_lab.published import published_for
from fedpg_lab.runs import RunData

COLOURS = ("#4c78a8", "#e45756", "#54a24b", "#f2a93b", "#b279a2", "#72b7b2", "#9d755d", "#ff9da6", "#5b5b5b", "#a0cbe8")
HONEST_COLOUR, BYZANTINE_COLOUR = "#4c78a8", "#c0392b"
COLUMNS_MAX = 3
WIDTH_MIN = 6.5
"""Inches of a figure."""
CHARACTER_WIDTH = 0.07
"""Inches of a legend's character, in the mean."""
LEGEND_MARGIN = 0.6
"""Inches of an entry of the legend beside its text."""
TITLE_WIDTH = 52
"""Characters of a line of a panel's title."""
DRAWN_POINTS = 600
"""Of a curve; more would only make the file larger."""
DISTANCE_PANELS_MAX = 12
DIP_SHOWN = 0.75
"""How far below its start a curve is shown, as a part of how far it rises above."""
PER_PARTICIPANT = "trajectories per participant"
IN_ALL = "trajectories sampled by all agents and the server"


@dataclass(frozen=True)
class Panel:
    """Groups that are compared with each other."""

    title: str
    groups: tuple[Group, ...]


def panels_of(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each task and attack. Federations without attackers stand in each of their task's panels."""
    panels = []
    for task in dict.fromkeys(group.federation.task.name for group in groups):
        of_task = [group for group in groups if group.federation.task.name == task]
        attacks = [attack for attack in dict.fromkeys(group.attack for group in of_task) if attack] or [""]
        for attack in attacks:
            title = f"{task}, {attack}" if attack else task
            panels.append(Panel(title, tuple(group for group in of_task if group.attack in ("", attack))))
    return panels


def draw_returns(groups: Sequence[Group], *, honest: bool, window: int) -> Figure:
    """Evaluation return against trajectories, mean and 90 % interval over seeds, with the published points.

    The honest axis has no published points: the paper's totals are not known.
    """
    panels = panels_of(groups)
    figure, places = _grid(len(panels), width=4.6, height=3.6)
    colours = _colours(groups)
    overlaid: set[str] = set()
    for panel, axes in zip(panels, places, strict=True):
        drawn = [
            curve
            for group in panel.groups
            if (curve := _draw_group(axes, group, evaluation_return, colours[group.label], honest, window))
        ]
        end = max((float(curve.counts[-1]) for curve in drawn), default=1.0)
        if not honest:
            for group in panel.groups:
                overlaid |= _draw_published(axes, group, colours[group.label], end)
        axes.set_xlim(0, end * 1.03)
        axes.set_ylim(*_limits(axes, drawn))
        axes.set_title(textwrap.fill(panel.title, TITLE_WIDTH))
        axes.set_xlabel(IN_ALL if honest else PER_PARTICIPANT)
    _label_left(figure, places, "evaluation return" + (f", mean over {window} rounds" if window > 1 else ""))
    handles = _handles(groups, colours)
    if overlaid:
        environments = ", ".join(sorted(overlaid))
        handles.append(_marker("o", f"published: reaches a return ({environments})"))
        handles.append(_marker("D", "published: final return"))
    _legend_below(figure, handles)
    return figure


def draw_filter(groups: Sequence[Group], *, honest: bool, window: int) -> Figure:
    """The filter's precision and recall, and how many of the honest agents it accepts, against trajectories.

    Raises UsageError if no group has a filter.
    """
    filtering = [group for group in groups if is_filtering(group)]
    if not filtering:
        raise UsageError("none of these runs has an aggregator that filters votes, as fedpg does")
    panels = panels_of(filtering)
    values: Mapping[str, Callable[[Group], Callable[[RoundRecord], float | None]]] = {
        "precision": lambda group: _score(group, "precision"),
        "recall": lambda group: _score(group, "recall"),
        "honest agents accepted": _accepted_honest,
    }
    figure = Figure(figsize=(max(4.6 * len(panels), WIDTH_MIN), 7.2), layout="constrained")
    grid = figure.subplots(len(values), len(panels), sharex="col", sharey=True, squeeze=False)
    colours = _colours(filtering)
    for column, panel in enumerate(panels):
        grid[0, column].set_title(textwrap.fill(panel.title, TITLE_WIDTH))
        grid[-1, column].set_xlabel(IN_ALL if honest else PER_PARTICIPANT)
        for row, (name, value) in enumerate(values.items()):
            axes = grid[row, column]
            for group in panel.groups:
                _draw_group(axes, group, value(group), colours[group.label], honest, window)
            axes.set_ylim(-0.04, 1.04)
            axes.grid(alpha=0.25)
            if column == 0:
                axes.set_ylabel(name)
    _legend_below(figure, _handles(filtering, colours))
    return figure


def is_filtering(group: Group) -> bool:
    """Whether the group's aggregator selects whom it listens to."""
    return any(record.weights is not None for run in group.runs for record in run.records)


def has_distances(group: Group) -> bool:
    """Whether there is anything to measure distances from in the group's first seed."""
    return any(record.centre_distances for record in group.runs[0].records)


def draw_distances(groups: Sequence[Group], *, honest: bool) -> Figure:
    """Each agent's distance to the vector that the rule measured from, or else to μ, and the radius of the rule that
    decided, where it has one; first seeds only.

    Raises UsageError if no round of the runs had such a vector, or there are too many groups for a picture.
    """
    shown = [group for group in groups if has_distances(group)]
    if not shown:
        raise UsageError("no gradient survived in any round of these runs: there is nothing to measure distances from")
    if len(shown) > DISTANCE_PANELS_MAX:
        raise UsageError(f"{len(shown)} federations do not fit in one picture of distances: name fewer run folders")
    figure, places = _grid(len(shown), width=4.6, height=3.4)
    for group, axes in zip(shown, places, strict=True):
        _draw_distances(axes, group.runs[0], honest)
        attack = f", {group.attack}" if group.attack else ""
        title = f"{group.federation.task.name}, {group.label}{attack}, seed {group.federation.seed}"
        axes.set_title(textwrap.fill(title, TITLE_WIDTH), fontsize="small")
        axes.set_xlabel(IN_ALL if honest else PER_PARTICIPANT)
    _label_left(figure, places, "distance to the median vector, or to μ")
    _legend_below(
        figure,
        [
            Line2D([], [], color=HONEST_COLOUR, marker=".", linestyle="none", label="honest agent"),
            Line2D([], [], color=BYZANTINE_COLOUR, marker=".", linestyle="none", label="Byzantine agent"),
            Line2D([], [], color="black", label="radius"),
        ],
    )
    return figure


def save_figure(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write the picture as PNG and as SVG, beside each other under the name of `path`. Raises StorageError."""
    png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
    try:
        figure.savefig(png, dpi=150)
        with matplotlib.rc_context({"svg.hashsalt": "fedpg"}):  # the same picture has the same bytes
            figure.savefig(svg, metadata={"Date": None})
    except OSError as error:
        raise StorageError(f"the picture {path} cannot be written: {error.strerror}") from error
    return png, svg


def _draw_group(
    axes: Axes, group: Group, value: Callable[[RoundRecord], float | None], colour: str, honest: bool, window: int
) -> Curve | None:
    """Draw a group's curve, if it has one, and return it."""
    curve = mean_curve(group.runs, value, honest=honest, window=window)
    if curve is None:
        return None
    every = math.ceil(len(curve.counts) / DRAWN_POINTS)
    counts, mean = curve.counts[::every], curve.mean[::every]
    axes.plot(counts, mean, color=colour, linewidth=1.6, marker="." if len(counts) == 1 else "")
    if curve.half_width is not None:
        spread = curve.half_width[::every]
        axes.fill_between(counts, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
    return curve


def _limits(axes: Axes, curves: Sequence[Curve]) -> tuple[float, float]:
    """Limits of the returns shown: of the means and the published points, whatever the intervals do.

    A dip far below where learning started is cut, lest it make the rest flat; where a curve ends is always shown.
    """
    if not curves:
        return axes.get_ylim()
    points = [float(y) for line in axes.lines for y in np.asarray(line.get_ydata(), np.float64)]
    low, high = min(points), max(points)
    start = min(float(curve.mean[0]) for curve in curves)
    end = min(float(curve.mean[-1]) for curve in curves)
    low = max(low, min(end, start - DIP_SHOWN * (high - start)))
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_published(axes: Axes, group: Group, colour: str, end: float) -> set[str]:
    """Draw the published points up to `end`; the environment that they were published for, if there are any."""
    published = published_for(group.federation)
    if published is None:
        return set()
    points = [(count, target, "o") for target, count in published.reaches.items()]
    points.append((published.trajectories, published.final, "D"))
    inside = [point for point in points if point[0] <= end * 1.03]
    for count, target, marker in inside:
        axes.plot(count, target, marker, markersize=6, markerfacecolor=colour, markeredgecolor="black",
                  markeredgewidth=1.1, zorder=5, clip_on=False)  # fmt: skip
    return {published.environment} if inside else set()


def _score(group: Group, name: str) -> Callable[[RoundRecord], float | None]:
    """Precision or recall, which say something only where there is somebody to find."""
    return lambda record: record.detection.get(name) if group.federation.byzantine else None


def _accepted_honest(group: Group) -> Callable[[RoundRecord], float | None]:
    """The part of the honest agents' gradients that a round accepted."""
    byzantine = set(group.federation.byzantine)

    def value(record: RoundRecord) -> float | None:
        voted = set(record.accepted + record.filtered) - byzantine
        return len(voted & set(record.accepted)) / len(voted) if voted else None

    return value


def _draw_distances(axes: Axes, run: RunData, honest: bool) -> None:
    """A dot for each agent and round; the agent whose vector is the median itself, at distance 0, is left out."""
    counts = honest_counts(run) if honest else published_counts(run)
    for is_byzantine, colour in ((False, HONEST_COLOUR), (True, BYZANTINE_COLOUR)):
        dots = [
            (count, distance)
            for count, record in zip(counts, run.records, strict=True)
            for agent, distance in record.centre_distances.items()
            if (agent in run.federation.poisoners) is is_byzantine and distance > 0
        ]
        if dots:
            axes.plot(*np.array(dots).T, ".", color=colour, markersize=2.5, alpha=0.5, rasterized=True)
    radii = [r.figures.get("radius", math.nan) if r.centre_distances else math.nan for r in run.records]
    axes.plot(counts, radii, color="black", linewidth=1.0, drawstyle="steps-pre")
    axes.set_yscale("log")


def _grid(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, in rows of three."""
    columns = min(COLUMNS_MAX, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(width * columns, WIDTH_MIN), height * rows + 0.9), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in places[count:]:
        axes.remove()
    for axes in places[:count]:
        axes.grid(alpha=0.25)
    return figure, places[:count]


def _label_left(figure: Figure, places: Sequence[Axes], text: str) -> None:
    for axes in places:
        if axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            axes.set_ylabel(text)


def _colours(groups: Sequence[Group]) -> dict[str, str]:
    """A colour for each label, the same in all panels."""
    labels = dict.fromkeys(group.label for group in groups)
    return {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(labels)}


def _handles(groups: Sequence[Group], colours: Mapping[str, str]) -> list[Line2D]:
    seeds: dict[str, list[int]] = {}
    for group in groups:
        seeds.setdefault(group.label, []).append(len(group.runs))
    return [Line2D([], [], color=colours[label], label=f"{label} ({_seeds(counts)})")
            for label, counts in seeds.items()]  # fmt: skip


def _seeds(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return "1 seed" if high == 1 else f"{high} seeds" if low == high else f"{low} to {high} seeds"


def _marker(shape: str, label: str) -> Line2D:
    return Line2D([], [], marker=shape, linestyle="none", markerfacecolor="white", markeredgecolor="black", label=label)


def _legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """In as many columns as fit; a label that is wider than the figure is wrapped."""
    width = figure.get_figwidth()
    for handle in handles:
        handle.set_label(textwrap.fill(handle.get_label(), max(1, int((width - LEGEND_MARGIN) / CHARACTER_WIDTH))))
    widths = [LEGEND_MARGIN + CHARACTER_WIDTH * max(map(len, handle.get_label().split("\n"))) for handle in handles]
    columns = len(handles)
    while columns > 1 and sum(max(part) for part in np.array_split(widths, columns)) > width:
        columns -= 1
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
