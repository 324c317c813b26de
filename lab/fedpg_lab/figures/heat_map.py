"""Heat maps: a table of numbers whose colours show at a glance where it is bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

COLOUR_MAP = "viridis"
"""Even in lightness, so that it survives colour blindness and a copier."""
CELL_WIDTH, CELL_HEIGHT = 0.62, 0.46
"""Inches."""
LETTER = 0.085
"""Inches of a letter of the labels."""
GAP = 0.35
"""Between blocks of columns, in cells."""
MISSING_COLOUR, MARK_COLOUR = "#eeeeee", "#D55E00"
SMALL, NORMAL = 6.5, 8.5
"""Points."""


@dataclass(frozen=True)
class Shade:
    """One cell."""

    value: float | None
    """What colours it; None where there is nothing yet."""
    text: str
    note: str = ""
    """In small letters below."""
    is_marked: bool = False
    """Whether it has a frame."""


@dataclass(frozen=True)
class Block:
    """Columns that belong together."""

    columns: tuple[str, ...]
    shades: tuple[tuple[Shade, ...], ...]
    """By row."""


@dataclass(frozen=True)
class HeatMap:
    """All of a picture."""

    title: str
    rows: tuple[str, ...]
    blocks: tuple[Block, ...]
    scale: str
    """What the colours mean."""
    low_is_good: bool = False
    low: float | None = None
    """Where the colours begin; at the least value if it is None."""
    high: float | None = None
    """Where they end."""


def draw_heat_map(heat_map: HeatMap) -> Figure:
    """Every number of the table on its colour. Lighter is better."""
    columns = sum(len(block.columns) for block in heat_map.blocks)
    width = columns + GAP * (len(heat_map.blocks) - 1)
    labels = [name for block in heat_map.blocks for name in block.columns]
    left, top = LETTER * max(map(len, heat_map.rows)), LETTER * max(map(len, labels)) * 0.75
    size = (max(width * CELL_WIDTH + left + 1.3, 6.5), len(heat_map.rows) * CELL_HEIGHT + top + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    shades = [shade for block in heat_map.blocks for line in block.shades for shade in line]
    values = np.array([shade.value for shade in shades if shade.value is not None], np.float64)
    colours = matplotlib.colormaps[COLOUR_MAP + ("_r" if heat_map.low_is_good else "")]
    norm = _norm(values, heat_map.low, heat_map.high)
    start = 0.0
    places: list[float] = []
    for block in heat_map.blocks:
        for column in range(len(block.columns)):
            for row, line in enumerate(block.shades):
                shade = line[column]
                colour = MISSING_COLOUR if shade.value is None else colours(norm(shade.value))
                _draw_cell(axes, start + column, row, shade, to_rgb(colour))
            places.append(start + column + 0.5)
        start += len(block.columns) + GAP
    axes.set_xlim(0, width)
    axes.set_ylim(len(heat_map.rows), 0)
    axes.set_xticks(places, labels, rotation=45, ha="left", rotation_mode="anchor", fontsize=NORMAL)
    axes.set_yticks([row + 0.5 for row in range(len(heat_map.rows))], heat_map.rows, fontsize=NORMAL)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(heat_map.title, loc="left", fontsize=10.5, fontweight="bold")
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(norm, colours), ax=axes, pad=0.01, aspect=30, shrink=0.9)
    bar.set_label(heat_map.scale, fontsize=NORMAL)
    bar.ax.tick_params(labelsize=NORMAL - 1)
    bar.outline.set_visible(False)
    return figure


def _norm(values: NDArray[np.float64], low: float | None, high: float | None) -> Normalize:
    finite = values[np.isfinite(values)]
    low = (float(finite.min()) if finite.size else 0.0) if low is None else low
    high = (float(finite.max()) if finite.size else 1.0) if high is None else high
    return Normalize(low if low < high else high - 1.0, high, clip=True)


def _draw_cell(axes: Axes, x: float, y: int, shade: Shade, rgb: tuple[float, float, float]) -> None:
    axes.add_patch(Rectangle((x + 0.02, y + 0.03), 0.96, 0.94, facecolor=rgb, linewidth=0))
    if shade.is_marked:
        axes.add_patch(Rectangle((x + 0.05, y + 0.06), 0.9, 0.88, fill=False, edgecolor=MARK_COLOUR, linewidth=1.6))
    ink = "black" if np.dot((0.299, 0.587, 0.114), rgb) > 0.5 else "white"
    middle = y + (0.36 if shade.note else 0.5)
    axes.text(x + 0.5, middle, shade.text, ha="center", va="center", color=ink, fontsize=NORMAL)
    if shade.note:
        axes.text(x + 0.5, y + 0.74, shade.note, ha="center", va="center", color=ink, fontsize=SMALL)


def column_block(columns: Sequence[str], lines: Sequence[Sequence[Shade]]) -> Block:
    """A block from lists."""
    return Block(tuple(columns), tuple(map(tuple, lines)))
