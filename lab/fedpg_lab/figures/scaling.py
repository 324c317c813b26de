"""How much faster more agents learn: trajectories needed to reach a return, against K."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from fedpg_common.errors import UsageError
from fedpg_common.federation import method_of
from fedpg_server.learning.records import FINAL_FRACTION
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from fedpg_lab.figures.curves import Group, first_reach, mean_curve
from fedpg_lab.figures.parts import COLOURS, IN_ALL, PER_PARTICIPANT
from fedpg_lab.figures.published import published_for

TICK_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), tuple(range(10, 100, 5)))
"""Within a decade, from few ticks to many; the last in tenths."""
TICKS_MIN, TICKS_MAX = 3, 9
NOTE_WIDTH = 50
"""Characters of a line of the legend that is a note."""
EXPONENT = 2 / 3
"""Fan et al. 2021: without attackers, the trajectories that each agent needs fall as K^(-2/3)."""


@dataclass(frozen=True)
class Scale:
    """Federations of one task, algorithm and attack that differ in size."""

    name: str
    groups: tuple[Group, ...]
    """By ascending K."""


def has_scales(groups: Sequence[Group]) -> bool:
    """Whether any task has federations that differ in size alone."""
    return bool(_scales(groups))


def scales_of(groups: Sequence[Group]) -> dict[str, list[Scale]]:
    """By task, the families of federations that come in several sizes. Raises UsageError if there are none."""
    scales = _scales(groups)
    if not scales:
        sizes = ", ".join(str(K) for K in sorted({group.federation.agents for group in groups}))
        raise UsageError(
            "trajectories against K need federations of one task, algorithm and attack in several sizes, "
            f"and these have K = {sizes}"
        )
    return scales


def left_out(groups: Sequence[Group]) -> list[Group]:
    """The groups that no family has a place for: the only size of their kind, or a second one of the same size."""
    drawn = [group for scales in _scales(groups).values() for scale in scales for group in scale.groups]
    return [group for group in groups if not any(group is other for other in drawn)]


def _scales(groups: Sequence[Group]) -> dict[str, list[Scale]]:
    families: dict[tuple[str, str], dict[int, Group]] = {}
    for group in groups:
        federation = group.federation
        attack = f", {group.attack}" if group.attack else ""
        key = federation.task.name, f"{method_of(federation)}{attack}"
        families.setdefault(key, {}).setdefault(federation.agents, group)
    scales: dict[str, list[Scale]] = {}
    for (task, name), sizes in families.items():
        if len(sizes) > 1:
            scales.setdefault(task, []).append(Scale(name, tuple(sizes[K] for K in sorted(sizes))))
    return scales


def reachable(groups: Sequence[Group]) -> float:
    """A return that all groups reach: the least of their mean curves' last 5 %, rounded down to two digits."""
    finals = []
    for group in groups:
        curve = mean_curve(group.runs)
        if curve is not None:
            last = curve.counts >= curve.counts[-1] * (1 - FINAL_FRACTION)
            finals.append(float(curve.mean[last].mean()))
    least = min(finals, default=0.0)
    unit = 10.0 ** (math.floor(math.log10(abs(least))) - 1) if least else 1.0
    return math.floor(least / unit) * unit


def trajectories_needed(group: Group, target: float, honest: bool) -> float | None:
    """The trajectory count at which the group's mean curve first reaches a return, or None."""
    curve = mean_curve(group.runs, honest=honest)
    return None if curve is None else first_reach(curve, target)


def draw_scaling(groups: Sequence[Group], *, target: float | None, honest: bool) -> Figure:
    """Trajectories to reach a return against K, on logarithmic axes, with the theorem's K^(-2/3) and published points.

    Without a `target`, each task has the highest return that all its federations reach. On the honest axis, all agents'
    trajectories count together, and the theorem's line rises as K^(1/3). Raises UsageError.
    """
    scales = scales_of(groups)
    figure = Figure(figsize=(5.4 * len(scales), 4.6), layout="constrained")
    places = figure.subplots(1, len(scales), squeeze=False)[0]
    unplaced = left_out(groups)
    for axes, (task, families) in zip(places, scales.items(), strict=True):
        everyone = [group for family in families for group in family.groups]
        wanted = reachable(everyone) if target is None else target
        _draw_task(axes, families, wanted, honest)
        missing = [name_in_task(group) for group in unplaced if group.federation.task.name == task]
        if missing:
            text = f"not drawn, the only size of its kind: {', '.join(missing)}"
            axes.plot([], [], " ", label=textwrap.fill(text, NOTE_WIDTH))
        axes.legend(frameon=False, fontsize="small")
        axes.set_title(f"{task}: until the mean return is {wanted:g}")
    return figure


def _draw_task(axes: Axes, families: Sequence[Scale], target: float, honest: bool) -> None:
    exponent = 1 - EXPONENT if honest else -EXPONENT
    sizes: set[int] = set()
    never = []
    for family, colour in zip(families, COLOURS * len(families), strict=False):
        needed = {group.federation.agents: trajectories_needed(group, target, honest) for group in family.groups}
        points = {K: count for K, count in needed.items() if count}
        never += [f"{family.name} K={K}" for K, count in needed.items() if count is None]
        sizes |= set(needed)
        if not points:
            continue
        axes.plot(list(points), list(points.values()), "o-", color=colour, label=family.name)
        first = min(points)
        line = np.array([first, max(needed)], np.float64)
        text = "K^(1/3)" if honest else "K^(-2/3)"
        axes.plot(line, points[first] * (line / first) ** exponent, "--", color=colour, linewidth=1,
                  label=f"{text} from K = {first}")  # fmt: skip
        if not honest:
            _draw_published(axes, family, target, colour)
    if never:
        axes.plot([], [], " ", label=textwrap.fill("never there: " + ", ".join(never), NOTE_WIDTH))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sorted(sizes), [str(K) for K in sorted(sizes)])
    axes.xaxis.set_minor_formatter(NullFormatter())
    ticks = log_ticks(*axes.get_ylim())
    axes.set_yticks(ticks, [f"{tick:,.10g}" for tick in ticks])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("agents, K (log scale)")
    axes.set_ylabel(f"{IN_ALL if honest else PER_PARTICIPANT} (log scale)")
    axes.grid(alpha=0.25, which="both")


def log_ticks(low: float, high: float) -> list[float]:
    """Round values from `low` to `high`, three to nine of them where there are as many."""
    ticks: list[float] = []
    for steps in TICK_STEPS:
        scale = 0.1 if steps[-1] > 10 else 1.0  # the last steps are in tenths
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [step * scale * 10.0**decade for decade in decades for step in steps]
        inside = sorted({float(f"{tick:.6g}") for tick in found if low <= tick <= high})
        if len(inside) > TICKS_MAX:
            break
        ticks = inside
        if len(ticks) >= TICKS_MIN:
            break
    if len(ticks) < 2:  # a narrow range
        ticks = [float(tick) for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    return ticks


def name_in_task(group: Group) -> str:
    """The group's label with its attack."""
    return f"{group.label}, {group.attack}" if group.attack else group.label


def _draw_published(axes: Axes, family: Scale, target: float, colour: str) -> None:
    points = {}
    for group in family.groups:
        published = published_for(group.federation)
        if published is not None and target in published.reaches:
            points[group.federation.agents] = published.reaches[target]
    if points:
        axes.plot(list(points), list(points.values()), "D", markerfacecolor="white", markeredgecolor=colour,
                  label=f"{family.name}, published")  # fmt: skip
