"""The picture of a scenario: the return over time, the faults, who was absent when, and what each round cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fedpg_lab.faults.costs import SECONDS_MIN, RoundCost, usual_round_s
from fedpg_lab.faults.history import FaultSpan, History
from fedpg_lab.figures.one_run import plot_verdicts, title_of
from fedpg_lab.runs.folders import RunData

CURVE_COLOUR, LOST_COLOUR, WAIT_COLOUR, SILENT_COLOUR = "#4c78a8", "#c0392b", "#5b5b5b", "#9a9a9a"
FAULT_COLOURS = ("#009e73", "#8a4fbf", "#b08c00", "#d16ba5", "#00808f", "#7a5230")
"""None of the colours of verdicts, curves and lost time."""
LANES_MAX = 12
"""Rows of faults that are drawn apart; what does not fit shares the last."""
LABEL_MAX = 46
"""Characters of a fault's label."""


def draw_scenario(run: RunData, history: History, costs: Sequence[RoundCost]) -> Figure:
    """All of it against time. `run` has a round at least, and `costs` are its rounds'."""
    lanes = _lanes(history.faults)
    rows = max(lanes, default=-1) + 1 + bool(history.below_quorum) + bool(history.silent)
    heights = (3.2, 0.35 + 0.26 * max(rows, 1), min(4.5, 0.6 + 0.2 * run.federation.agents), 1.6)
    figure = Figure(figsize=(10, sum(heights) + 0.9), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True, height_ratios=heights)
    for place in axes:
        _shade(place, history.faults)
    _plot_returns(axes[0], run, costs)
    axes[0].set_title(title_of(run))
    _plot_faults(axes[1], history, lanes, rows)
    plot_verdicts(axes[2], run, np.array([costs[0].begin_s, *(cost.end_s for cost in costs)]))
    _mark_ends(axes[2], history.faults)
    _plot_costs(axes[3], costs)
    axes[3].set_xlabel("seconds since the first round opened")
    axes[3].set_xlim(0, 1.01 * max(SECONDS_MIN, history.end_s, costs[-1].end_s, *map(_end, history.faults)))
    return figure


def _lanes(spans: Sequence[FaultSpan]) -> list[int]:
    """A row for each fault: the repetitions of one share theirs."""
    rows: dict[str, int] = {}
    return [min(rows.setdefault(span.planned.label, len(rows)), LANES_MAX - 1) for span in spans]


def _shade(axes: Axes, spans: Sequence[FaultSpan]) -> None:
    for span, lane in zip(spans, _lanes(spans), strict=True):
        if span.heal_s == span.begin_s:  # over at once
            axes.axvline(span.begin_s, color=_colour(lane), alpha=0.5, linewidth=1, zorder=0)
            continue
        axes.axvspan(span.begin_s, _end(span), color=_colour(lane), alpha=0.12, linewidth=0, zorder=0)


def _mark_ends(axes: Axes, spans: Sequence[FaultSpan]) -> None:
    """Where a map hides the shades: lines at which the faults begin and end."""
    for span, lane in zip(spans, _lanes(spans), strict=True):
        for time_s in {span.begin_s, _end(span)}:
            axes.axvline(time_s, color=_colour(lane), linewidth=1)


def _plot_returns(axes: Axes, run: RunData, costs: Sequence[RoundCost]) -> None:
    ends = [cost.end_s for cost in costs]
    axes.plot(ends, [record.evaluation_return for record in run.records], color=CURVE_COLOUR, linewidth=1.4,
              marker="o", markersize=2.5, label="evaluation, greedy")  # fmt: skip
    training = [(end, r.training_return) for end, r in zip(ends, run.records, strict=True)
                if r.training_return is not None]  # fmt: skip
    if training:
        axes.plot(*zip(*training, strict=True), color="#999999", linewidth=0.9, label="training, honest agents")
    axes.set_ylabel("return")
    axes.grid(alpha=0.25)
    axes.legend(loc="best", frameon=False)


def _plot_faults(axes: Axes, history: History, lanes: Sequence[int], rows: int) -> None:
    end_s = max(history.end_s, SECONDS_MIN)
    for span, lane in zip(history.faults, lanes, strict=True):
        _bar(axes, lane, span.begin_s, _end(span), end_s, _colour(lane))
    first = dict(zip(reversed(lanes), reversed(history.faults), strict=True))
    labels = [_shortened(first[lane].planned.label) for lane in sorted(first)]
    for waits, what, colour in (
        (history.below_quorum, "no quorum", WAIT_COLOUR),
        (history.silent, "no answer", SILENT_COLOUR),
    ):
        for wait in waits:
            _bar(axes, len(labels), wait.begin_s, wait.end_s, end_s, colour)
        if waits:
            labels.append(what)
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.set_ylim(max(rows, 1) - 0.5, -0.5)
    _explain(axes, history, lanes)
    if not labels:
        axes.set_ylabel("no fault")


def _explain(axes: Axes, history: History, lanes: Sequence[int]) -> None:
    """Which colour is what, also in the other panels."""
    faults: dict[str, list[str]] = {}
    for span, lane in zip(history.faults, lanes, strict=True):
        faults.setdefault(_colour(lane), []).append(span.planned.label)
    handles = [
        Patch(color=colour, label=_shortened(" or ".join(dict.fromkeys(labels)))) for colour, labels in faults.items()
    ]
    if handles:
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small",
                    title="faults", title_fontsize="small", alignment="left")  # fmt: skip


def _bar(axes: Axes, lane: int, begin_s: float, end_s: float, all_s: float, colour: str) -> None:
    """A span in its row; one that is over at once is drawn as wide as can be seen."""
    axes.barh(lane, max(end_s - begin_s, 0.004 * all_s), left=begin_s, height=0.6, color=colour)


def _plot_costs(axes: Axes, costs: Sequence[RoundCost]) -> None:
    middles = [(cost.begin_s + cost.end_s) / 2 for cost in costs]
    widths = [cost.seconds for cost in costs]
    lost = [cost.lost_s or 0.0 for cost in costs]
    kept = [cost.seconds - gone for cost, gone in zip(costs, lost, strict=True)]
    axes.bar(middles, kept, width=widths, color="#a0cbe8", edgecolor="white", linewidth=0.4)
    axes.bar(middles, lost, width=widths, bottom=kept, color=LOST_COLOUR, edgecolor="white", linewidth=0.4)
    axes.set_ylabel("seconds\na round")
    axes.grid(alpha=0.25, axis="y")
    usual_s = usual_round_s(costs)
    handles = [Patch(color="#a0cbe8", label="usual"), Patch(color=LOST_COLOUR, label="lost")]
    if usual_s is None:
        handles = [Patch(color="#a0cbe8", label="all with faults")]
    else:
        axes.axhline(usual_s, color="#555555", linewidth=0.8, linestyle="--")
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")


def _end(span: FaultSpan) -> float:
    return span.begin_s if span.heal_s is None else span.heal_s


def _colour(lane: int) -> str:
    return FAULT_COLOURS[lane % len(FAULT_COLOURS)]


def _shortened(label: str) -> str:
    return label if len(label) <= LABEL_MAX else f"{label[: LABEL_MAX - 1]}…"
