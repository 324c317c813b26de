"""The paper's figures from runs of one's own: several federations in one picture, over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedpg_common.errors import UsageError
from fedpg_server.learning.records import RoundRecord
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedpg_lab.figures.curves import Curve, Group, evaluation_return, mean_curve, observed_returns
from fedpg_lab.figures.cut_off import limit_returns
from fedpg_lab.figures.parts import (
    IN_ALL,
    PER_PARTICIPANT,
    WIDTH_MIN,
    Style,
    dots_for,
    grid,
    handles_of,
    label_left,
    legend_below,
    marker,
    styles_of,
    wrapped,
)
from fedpg_lab.figures.published import published_for

DRAWN_POINTS = 600
"""Of a curve; more would only make the file larger."""


@dataclass(frozen=True)
class Panel:
    """Groups that are compared with each other."""

    title: str
    groups: tuple[Group, ...]


def panels_of(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each task, worlds and attack. Federations without attackers are in all of the attacks' panels."""
    panels = []
    for task in dict.fromkeys(group.federation.task.name for group in groups):
        of_task = [group for group in groups if group.federation.task.name == task]
        attacks = [attack for attack in dict.fromkeys(group.attack for group in of_task) if attack] or [""]
        for attack in attacks:
            for worlds in dict.fromkeys(group.worlds for group in of_task):
                shown = tuple(g for g in of_task if g.attack in ("", attack) and g.worlds == worlds)
                if not shown:
                    continue
                without = "no attack and " if attack and any(not group.attack for group in shown) else ""
                title = f"{task}, {without}{attack}" if attack else task
                panels.append(Panel(f"{title}, {worlds}" if worlds else title, shown))
    return panels


def draw_returns(groups: Sequence[Group], *, honest: bool, window: int) -> Figure:
    """Evaluation return against trajectories, mean and 90 % interval over seeds, with the published points.

    The honest axis has no published points: the paper's totals are not known.
    """
    panels = panels_of(groups)
    figure, places = grid(len(panels), width=4.6, height=3.6)
    styles = styles_of(groups)
    overlaid: dict[str, set[str]] = {}
    cut = []
    for panel, axes in zip(panels, places, strict=True):
        drawn = [
            (curve, styles[group.curve_label].colour)
            for group in panel.groups
            if (curve := _draw_group(axes, group, evaluation_return, styles[group.curve_label], honest, window,
                                     bounds=observed_returns(run for one in panel.groups for run in one.runs)))
        ]  # fmt: skip
        end = max((float(curve.counts[-1]) for curve, _ in drawn), default=1.0)
        if not honest:
            for group in panel.groups:
                for shape, environment in _draw_published(axes, group, styles[group.curve_label].colour, end):
                    overlaid.setdefault(shape, set()).add(environment)
        axes.set_xlim(0, end * 1.03)
        axes.set_title(wrapped(panel.title))
        axes.set_xlabel(IN_ALL if honest else PER_PARTICIPANT)
        cut.append(limit_returns(axes, drawn))
    label_left(places, "evaluation return" + (f", mean over {window} rounds" if window > 1 else ""))
    handles = handles_of(groups, styles)
    handles += [
        marker(shape, f"{PUBLISHED[shape]} ({', '.join(sorted(overlaid[shape]))})")
        for shape in PUBLISHED
        if shape in overlaid
    ]
    if any(what.curves for what in cut):
        handles.append(marker("v", "leaves the panel: lowest mean return", "#999999"))
    legend_below(figure, handles)
    return figure


PUBLISHED = {"o": "published: reaches a return", "D": "published: final return"}
"""The marks of published points, by their shape."""


def draw_filter(groups: Sequence[Group], *, honest: bool, window: int) -> Figure:
    """The filter's precision and recall, and how many of the honest agents it accepts, against trajectories.

    Precision and recall have a row only where any of the federations has attackers. Raises UsageError if no group has
    a filter.
    """
    filtering = [group for group in groups if is_filtering(group)]
    if not filtering:
        raise UsageError("none of these runs has an aggregator that filters votes, as fedpg does")
    panels = panels_of(filtering)
    values: dict[str, Callable[[Group], Callable[[RoundRecord], float | None]]] = {}
    if any(group.federation.poisoners for group in filtering):
        values["precision"] = lambda group: _score(group, "precision")
        values["recall"] = lambda group: _score(group, "recall")
    values["honest agents accepted"] = _accepted_honest
    figure = Figure(figsize=(max(4.6 * len(panels), WIDTH_MIN), 0.9 + 2.1 * len(values)), layout="constrained")
    places = figure.subplots(len(values), len(panels), sharex="col", sharey=True, squeeze=False)
    styles = styles_of(filtering)
    for column, panel in enumerate(panels):
        places[0, column].set_title(wrapped(panel.title))
        places[-1, column].set_xlabel(IN_ALL if honest else PER_PARTICIPANT)
        for row, (name, value) in enumerate(values.items()):
            axes = places[row, column]
            _draw_scores(axes, panel, value, styles, honest, window)
            if column == 0:
                axes.set_ylabel(name)
    legend_below(figure, handles_of(filtering, styles))
    return figure


def is_filtering(group: Group) -> bool:
    """Whether the group's aggregator selects whom it listens to."""
    return any(record.weights is not None for run in group.runs for record in run.records)


def _draw_scores(
    axes: Axes,
    panel: Panel,
    value: Callable[[Group], Callable[[RoundRecord], float | None]],
    styles: Mapping[str, Style],
    honest: bool,
    window: int,
) -> None:
    """One score of a panel's groups; where there is none, why."""
    curves = [
        _draw_group(axes, group, value(group), styles[group.curve_label], honest, window, bounds=(0.0, 1.0))
        for group in panel.groups
    ]
    axes.set_ylim(-0.04, 1.04)
    axes.grid(alpha=0.25)
    if not any(curves):
        axes.text(0.5, 0.5, _why_none(panel), transform=axes.transAxes, ha="center", va="center", color="#777777")
        if not any(group.federation.poisoners for group in panel.groups):
            _leave_empty(axes)


def _why_none(panel: Panel) -> str:
    if any(group.federation.poisoners for group in panel.groups):
        return "nobody was filtered"
    if any(group.federation.byzantine for group in panel.groups):
        return "no bad vote to find:\nhostile to the protocol alone"
    return "no attackers"


def _leave_empty(axes: Axes) -> None:
    """No frame around nothing; the panel's place, title and axis of the row stay."""
    axes.grid(visible=False)
    axes.tick_params(bottom=False, left=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_group(
    axes: Axes, group: Group, value: Callable[[RoundRecord], float | None], style: Style, honest: bool, window: int,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Curve | None:  # fmt: skip
    """Draw a group's curve, if it has one, and return it. The figure itself, and so its interval, lies in `bounds`."""
    curve = mean_curve(group.runs, value, honest=honest, window=window, bounds=bounds)
    if curve is None:
        return None
    every = math.ceil(len(curve.counts) / DRAWN_POINTS)
    counts, mean = curve.counts[::every], curve.mean[::every]
    axes.plot(counts, mean, color=style.colour, linestyle=style.line, linewidth=1.6, marker=dots_for(len(counts)))
    if curve.band is not None:
        low, high = curve.band
        axes.fill_between(counts, low[::every], high[::every], color=style.colour, alpha=0.18, linewidth=0)
    return curve


def _draw_published(axes: Axes, group: Group, colour: str, end: float) -> list[tuple[str, str]]:
    """Draw the published points up to `end`. The shape of each, and the environment that it was published for."""
    published = published_for(group.federation)
    if published is None:
        return []
    points = [(count, target, "o") for target, count in published.reaches.items()]
    points.append((published.trajectories, published.final, "D"))
    inside = [point for point in points if point[0] <= end * 1.03]
    for count, target, shape in inside:
        axes.plot(count, target, shape, markersize=6, markerfacecolor=colour, markeredgecolor="black",
                  markeredgewidth=1.1, zorder=5, clip_on=False)  # fmt: skip
    return [(shape, published.environment) for _, _, shape in inside]


def _score(group: Group, name: str) -> Callable[[RoundRecord], float | None]:
    """Precision or recall, which say something only where there is somebody to find."""
    return lambda record: record.detection.get(name) if group.federation.poisoners else None


def _accepted_honest(group: Group) -> Callable[[RoundRecord], float | None]:
    """The part of the honest agents' gradients that a round accepted."""
    byzantine = set(group.federation.byzantine)

    def value(record: RoundRecord) -> float | None:
        voted = set(record.accepted + record.filtered) - byzantine
        return len(voted & set(record.accepted)) / len(voted) if voted else None

    return value
