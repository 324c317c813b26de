"""What all figures have in common: colours, panels, legends, and how a picture is written."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from fedpg_common.errors import StorageError
from fedpg_common.files import reason, shown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fedpg_lab.figures.curves import Group

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's, which the colour-blind tell apart, without the yellow, which is too pale for a line."""
LineStyle = Literal["-", "--", ":"]
LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", ":")
"""The second seven curves are dashed."""
HONEST_COLOUR, BYZANTINE_COLOUR = "#0072B2", "#D55E00"
COLUMNS_MAX = 3
WIDTH_MIN = 6.5
"""Inches of a figure."""
TITLE_WIDTH = 52
"""Characters of a line of a panel's title."""
CHARACTER_WIDTH = 0.07
"""Inches of a legend's character, in the mean."""
LEGEND_MARGIN = 0.6
"""Inches of an entry of the legend beside its text."""
PER_PARTICIPANT = "trajectories per participant"
IN_ALL = "trajectories sampled by all agents and the server"


FEW_POINTS = 6
"""Points of a curve that are marked, so that they are not taken for a line that was cut off."""


class Style(NamedTuple):
    """How a curve is drawn."""

    colour: str
    line: LineStyle


def dots_for(points: int) -> str:
    """The marker of a curve with so many points: a dot on each of a few, none on many."""
    return "." if points <= FEW_POINTS else ""


def wrapped(title: str, width: int = TITLE_WIDTH) -> str:
    """A title on several lines; no name is broken at its hyphens."""
    return textwrap.fill(title, width, break_on_hyphens=False)


def styles_of(groups: Sequence[Group]) -> dict[str, Style]:
    """A style for each label, the same in all panels."""
    labels = dict.fromkeys(group.curve_label for group in groups)
    count = len(COLOURS)
    return {
        label: Style(COLOURS[place % count], LINE_STYLES[place // count % len(LINE_STYLES)])
        for place, label in enumerate(labels)
    }


def grid(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
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


def label_left(places: Sequence[Axes], text: str) -> None:
    """Name the y axis of the panels on the left."""
    for axes in places:
        if axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            axes.set_ylabel(text)


def handles_of(groups: Sequence[Group], styles: Mapping[str, Style]) -> list[Any]:
    """The legend of curves: each label with its seeds, and what the shade is where there are several."""
    seeds: dict[str, list[int]] = {}
    for group in groups:
        seeds.setdefault(group.curve_label, []).append(len(group.runs))
    handles: list[Any] = [
        Line2D([], [], color=styles[label].colour, linestyle=styles[label].line, label=f"{label} ({seeds_of(counts)})")
        for label, counts in seeds.items()
    ]
    if any(len(group.runs) > 1 for group in groups):
        handles.append(Patch(facecolor="#999999", alpha=0.4, label="90 % interval of the mean over seeds"))
    return handles


def seeds_of(counts: Sequence[int]) -> str:
    """How many seeds a curve is the mean of; panels may differ."""
    low, high = min(counts), max(counts)
    if low == high:
        return "1 seed" if high == 1 else f"{high} seeds"
    return f"{low} {'or' if high == low + 1 else 'to'} {high} seeds, by panel"


def marker(shape: str, label: str, colour: str = "white") -> Line2D:
    """A legend's entry for a mark."""
    return Line2D([], [], marker=shape, linestyle="none", markerfacecolor=colour, markeredgecolor="black", label=label)


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """In as many columns as fit; a label that is wider than the figure is wrapped."""
    width = figure.get_figwidth()
    for handle in handles:
        handle.set_label(textwrap.fill(handle.get_label(), max(1, int((width - LEGEND_MARGIN) / CHARACTER_WIDTH))))
    widths = [LEGEND_MARGIN + CHARACTER_WIDTH * max(map(len, handle.get_label().split("\n"))) for handle in handles]
    columns = len(handles)
    while columns > 1 and sum(max(part) for part in np.array_split(widths, columns)) > width:
        columns -= 1
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, frameon=False, fontsize="small")


def save_figure(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write the picture as PNG and as SVG, beside each other under the name of `path`. Raises StorageError."""
    png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
    try:
        figure.savefig(png, dpi=150)
        with matplotlib.rc_context({"svg.hashsalt": "fedpg"}):  # the same picture has the same bytes
            figure.savefig(svg, metadata={"Date": None})
    except OSError as error:
        raise StorageError(f"the picture {shown(path)} cannot be written: {reason(error)}") from error
    return png, svg
