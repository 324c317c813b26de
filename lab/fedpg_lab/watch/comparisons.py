"""Several runs in one picture: curves over seeds, as `fedpg figure` draws them, with the published points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedpg_server.learning.records import RoundRecord, final_return

from fedpg_lab.figures.curves import Group, group_runs, mean_curve
from fedpg_lab.figures.published import published_for
from fedpg_lab.runs.folders import RunData
from fedpg_lab.watch.adapter import Facts


@dataclass
class Comparison:
    """A federation's curve over its seeds."""

    label: str
    task: str
    attack: str
    seeds: list[int]
    folders: list[Path]
    """The runs, in the order of the seeds."""
    counts: list[float]
    mean: list[float]
    half_width: list[float] | None
    final: float | None
    published: list[tuple[float, float, str]] = field(default_factory=list)
    """(trajectories, return, what it is)."""


def compare(runs: Sequence[tuple[Path, Facts, list[RoundRecord]]], honest: bool, window: int) -> list[Comparison]:
    """Mean and 90 % interval over seeds of the runs that have a round, in the order of the figures."""
    groups = group_runs([RunData(folder, facts.federation, records) for folder, facts, records in runs if records])
    return [one for group in groups if (one := _comparison(group, honest, window)) is not None]


def _comparison(group: Group, honest: bool, window: int) -> Comparison | None:
    curve = mean_curve(group.runs, honest=honest, window=window)
    if curve is None:
        return None
    points: list[tuple[float, float, str]] = []
    published = None if honest else published_for(group.federation)
    if published is not None:
        end = float(curve.counts[-1]) * 1.03
        points = [(float(count), target, "reaches a return") for target, count in published.reaches.items()]
        points.append((float(published.trajectories), published.final, "final return"))
        points = [point for point in points if point[0] <= end]
    finals = [value for run in group.runs if (value := final_return(run.records)) is not None]
    return Comparison(
        group.label,
        group.federation.task.name,
        group.attack,
        [run.federation.seed for run in group.runs],
        [run.folder for run in group.runs],
        curve.counts.tolist(),
        curve.mean.tolist(),
        None if curve.half_width is None else curve.half_width.tolist(),
        sum(finals) / len(finals) if finals else None,
        points,
    )
