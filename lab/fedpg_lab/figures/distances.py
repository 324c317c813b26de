"""The figure of distances: how far each agent's gradient lay from what the rule measured from, and the radius."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from fedpg_common.errors import UsageError
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedpg_lab.figures.curves import Group, Series, honest_counts, published_counts
from fedpg_lab.figures.parts import (
    BYZANTINE_COLOUR,
    HONEST_COLOUR,
    IN_ALL,
    PER_PARTICIPANT,
    grid,
    label_left,
    legend_below,
    wrapped,
)
from fedpg_lab.runs.folders import RunData

DISTANCE_PANELS_MAX = 12
BELOW_ALL = 0.6
"""Where the median agent, whose distance of 0 no logarithm has, is drawn: this part of the least distance shown."""


def draw_distances(groups: Sequence[Group], *, honest: bool) -> Figure:
    """Each agent's distance to the vector that the rule measured from, or else to μ, and the radius of the rule that
    decided, where it has one; first seeds only.

    Raises UsageError if no round of the runs had such a vector, or there are too many groups for a picture.
    """
    shown = [group for group in groups if has_distances(group)]
    if not shown:
        raise UsageError(
            "no gradient survived in any round of these runs, or they are kept without distances: "
            "there is nothing to measure distances from"
        )
    if len(shown) > DISTANCE_PANELS_MAX:
        raise UsageError(f"{len(shown)} federations do not fit in one picture of distances: name fewer run folders")
    figure, places = grid(len(shown), width=4.6, height=3.4)
    found: set[str] = set()
    for group, axes in zip(shown, places, strict=True):
        found |= draw_run(axes, group.runs[0], honest)
        attack = f", {group.attack}" if group.attack else ""
        title = f"{group.federation.task.name}, {group.label}{attack}, seed\u00a0{group.federation.seed}"
        axes.set_title(wrapped(title), fontsize="small")
        axes.set_xlabel(IN_ALL if honest else PER_PARTICIPANT)
    label_left(places, "distance to the median vector, or to μ")
    legend_below(figure, [handle for name, handle in _handles().items() if name in found])
    return figure


def has_distances(group: Group) -> bool:
    """Whether there is anything to measure distances from in the group's first seed."""
    return any(record.centre_distances for record in group.runs[0].records)


def draw_run(axes: Axes, run: RunData, honest: bool) -> set[str]:
    """A dot for each agent and round, at the end of its round, and the radius over the round's width.

    The median agent's own distance is 0: it is a triangle below all dots. Returns what the legend has to explain.
    """
    found = set()
    counts = honest_counts(run) if honest else published_counts(run)
    dots, medians = _dots(run, counts)
    radii = [r.figures.get("radius", math.nan) if r.centre_distances else math.nan for r in run.records]
    positive = [y for y in radii if y > 0] + [y for points in dots.values() for _, y in points]
    floor = BELOW_ALL * min(positive, default=1.0)
    for is_byzantine, colour in ((False, HONEST_COLOUR), (True, BYZANTINE_COLOUR)):
        if dots[is_byzantine]:
            x, y = np.array(dots[is_byzantine]).T
            axes.plot(x, y, ".", color=colour, markersize=3.5, alpha=0.6, rasterized=True, gid="agents")
            found.add("byzantine" if is_byzantine else "honest")
        if medians[is_byzantine]:
            line = [floor] * len(medians[is_byzantine])
            axes.plot(medians[is_byzantine], line, "^", color=colour, markersize=3.5, alpha=0.6, gid="median")
            found.add("median")
    if not all(map(math.isnan, radii)):
        axes.stairs(radii, [0.0, *counts], baseline=None, color="black", linewidth=1.0)
        found.add("radius")
    axes.set_yscale("log")
    axes.set_xlim(0, float(counts[-1]) * 1.03)
    return found


def _dots(run: RunData, counts: Series) -> tuple[dict[bool, list[tuple[float, float]]], dict[bool, list[float]]]:
    """By whether the agent is Byzantine: the distances, and where the median was."""
    dots: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    medians: dict[bool, list[float]] = {False: [], True: []}
    for count, record in zip(counts.tolist(), run.records, strict=True):
        for agent, distance in record.centre_distances.items():
            is_byzantine = agent in run.federation.poisoners
            if distance > 0:
                dots[is_byzantine].append((count, distance))
            elif agent == record.median_agent:
                medians[is_byzantine].append(count)
    return dots, medians


def _handles() -> dict[str, Line2D]:
    def dot(shape: str, colour: str, label: str) -> Line2D:
        return Line2D([], [], color=colour, marker=shape, linestyle="none", label=label)

    return {
        "honest": dot(".", HONEST_COLOUR, "honest agent"),
        "byzantine": dot(".", BYZANTINE_COLOUR, "Byzantine agent"),
        "median": dot("^", "#777777", "the agent that is measured from, at distance 0 (below the scale)"),
        "radius": Line2D([], [], color="black", label="radius of the rule that decided"),
    }
