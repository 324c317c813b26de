"""The limits of a panel of returns, and marks that say what lies beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from fedpg_lab.figures.curves import Curve

DIP_SHOWN = 0.75
"""How far below its start a curve is shown, as a part of how far it rises above."""
DIP_POINTS = 0.34
"""The part of a curve's points that may lie in its dips."""
DEEP = 2.0
"""How many times the rest's range a panel would have with its dips, for these to be cut."""
INTERVAL_SHOWN = 0.5
"""How far beyond the means an interval is shown, as a part of their range."""
MARGIN = 0.05
"""Room between the limits and the curves, as a part of the range."""
TEXT_STEP = 0.06
"""Of the panel's height, between the texts of marks."""


@dataclass(frozen=True)
class CutOff:
    """What was cut off, for the legend to explain."""

    curves: bool = False
    intervals: bool = False


def limit_returns(axes: Axes, drawn: Sequence[tuple[Curve, str]]) -> CutOff:
    """Set the limits of a panel with these curves and their colours, and mark what is cut off.

    A dip far below where learning started is cut, lest it make the rest flat; where a curve ends is always shown. A
    curve that leaves the panel gets an arrow with its lowest value, and the x axis says how far the intervals reach.
    """
    if not drawn:
        return CutOff()
    curves = [curve for curve, _ in drawn]
    low, high = _limits(axes, curves)
    axes.set_ylim(low, high)
    hidden = [(curve, colour) for curve, colour in drawn if curve.mean.min() < low]
    for place, (curve, colour) in enumerate(hidden):
        _mark(axes, curve, colour, place)
    return CutOff(bool(hidden), _note_intervals(axes, curves, low, high))


def _limits(axes: Axes, curves: Sequence[Curve]) -> tuple[float, float]:
    """Limits that hold the means but for deep dips, the published points, and what there is room for of the shade."""
    points = [float(y) for line in axes.lines for y in np.asarray(line.get_ydata(), np.float64) if np.isfinite(y)]
    if not points:
        return axes.get_ylim()
    low, high = min(points), max(points)
    start = min(float(curve.mean[0]) for curve in curves)
    end = min(float(curve.mean[-1]) for curve in curves)
    above = max(low, min(end, start - DIP_SHOWN * (high - start), *map(_floor, curves)))
    low = above if high - low > DEEP * (high - above) else low
    room = INTERVAL_SHOWN * (high - low)
    band_low, band_high = _band(curves)
    low, high = min(low, max(band_low, low - room)), max(high, min(band_high, high + room))
    margin = MARGIN * (high - low) or 1.0
    return low - margin, high + margin


def _floor(curve: Curve) -> float:
    """What is never cut: what lies below it is a dip, and not most of a curve that does not rise."""
    points = np.sort(curve.mean[np.isfinite(curve.mean)])
    return float(points[int(DIP_POINTS * len(points))]) if len(points) else np.inf


def _band(curves: Sequence[Curve]) -> tuple[float, float]:
    """How far the intervals reach; an empty range without any."""
    bands = [band for curve in curves if (band := curve.band) is not None]
    low = min((float(least.min()) for least, _ in bands), default=float("inf"))
    high = max((float(most.max()) for _, most in bands), default=float("-inf"))
    return low, high


def _mark(axes: Axes, curve: Curve, colour: str, place: int) -> None:
    """An arrow at the lower edge where the curve is lowest, with the value there."""
    at = int(curve.mean.argmin())
    x, transform = float(curve.counts[at]), axes.get_xaxis_transform()
    axes.plot([x], [0.02], marker="v", color=colour, markersize=6, linestyle="none", transform=transform, zorder=6)
    left, right = axes.get_xlim()
    to_the_right = x < (left + right) / 2
    axes.annotate(
        f"falls to {curve.mean[at]:,.0f}", (x, 0.02 + place * TEXT_STEP), xycoords=transform,
        xytext=(7 if to_the_right else -7, 0), textcoords="offset points", ha="left" if to_the_right else "right",
        va="center", fontsize="x-small", color=colour, zorder=6,
    )  # fmt: skip


def _note_intervals(axes: Axes, curves: Sequence[Curve], low: float, high: float) -> bool:
    """Say under the x axis how far the shade reaches beyond the panel. Whether it does."""
    band_low, band_high = _band(curves)
    parts = [f"down to {band_low:,.0f}"] if band_low < low else []
    parts += [f"up to {band_high:,.0f}"] if band_high > high else []
    if parts:
        axes.set_xlabel(f"{axes.get_xlabel()}\n(intervals reach {' and '.join(parts)})")
    return bool(parts)
