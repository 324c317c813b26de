"""Curves over several seeds: runs grouped by what was run, and their mean and interval on a common axis."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fedpg_common.descriptions import federation_to_toml
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.federation import Federation, method_of
from fedpg_common.files import shown
from fedpg_common.shipped import ALGORITHM_TITLES
from fedpg_common.tasks import TASKS, task_to_fields
from fedpg_server.learning.records import RoundRecord
from numpy.typing import NDArray

from fedpg_lab.runs.folders import RunData, find_run_folders, load_run, walk_runs
from fedpg_lab.runs.kept import kept_folders, load_kept

Series = NDArray[np.float64]
Value = Callable[[RoundRecord], float | None]
"""What a curve shows of a round; None where the round has no such figure."""

T_QUANTILES = (
    6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753,
    1.746, 1.740, 1.734, 1.729, 1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697,
)  # fmt: skip
"""The 0.95 quantile of Student's t distribution with 1, 2, … 30 degrees of freedom."""
NORMAL_QUANTILE = 1.645
LEARNING = ("agents", "inner", "aborted", "reference")
"""The sampled trajectories that learning costs; evaluation is only for looking."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    label: str
    """Method, K and B; and whatever else sets it apart from other groups of the same task and attack."""
    runs: tuple[RunData, ...]
    """By ascending seed; each has a round at least."""
    worlds: str = ""
    """The end of the label that says how its agents' worlds differ, where that sets groups apart; a panel's title."""

    @property
    def curve_label(self) -> str:
        """The label within the panel of its worlds."""
        return self.label.removesuffix(f", {self.worlds}")

    @property
    def federation(self) -> Federation:
        """What was run, with the first seed."""
        return self.runs[0].federation

    @property
    def attack(self) -> str:
        """The attacks, or an empty text."""
        return " + ".join(sorted({attack.label for attack in self.federation.byzantine.values()}))


@dataclass(frozen=True, eq=False)
class Curve:
    """A mean over seeds, with its 90 % interval."""

    counts: Series
    """(n,): trajectory counts that all runs have reached."""
    mean: Series
    """(n,)."""
    half_width: Series | None
    """(n,): the interval is mean ± this. None for a single run."""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    """Between which what is shown can lie, as far as it is known: the interval is drawn no further."""

    @property
    def band(self) -> tuple[Series, Series] | None:
        """The lower and the upper end of the interval as it is drawn, (n,) each. None for a single run."""
        if self.half_width is None:
            return None
        return np.clip(self.mean - self.half_width, *self.bounds), np.clip(self.mean + self.half_width, *self.bounds)


def find_runs(paths: Iterable[Path]) -> list[RunData]:
    """The runs in these folders, which are run folders or hold some at any depth, or runs that were kept.

    A run of which no round has ended is left out. Raises StorageError for a folder without a run, a damaged store, or
    if nothing is left.
    """
    kept = {path: kept_folders(path) for path in paths}
    stored = [path for path, found in kept.items() if not found or any(True for _ in walk_runs(path))]
    folders = dict.fromkeys(folder for path in stored for folder in find_run_folders(path))
    of_kept = [run for place in dict.fromkeys(itertools.chain(*kept.values())) for run in load_kept(place)]
    runs = [run for run in itertools.chain(map(load_run, folders), of_kept) if run.records]
    if not runs:
        raise StorageError(f"no run in {', '.join(map(shown, kept))} has ended a round yet")
    return runs


def group_runs(runs: Sequence[RunData]) -> list[Group]:
    """The runs by description apart from seed and patience; by task, the paper's order of methods, K and B.

    Of two runs of the same description and seed, which are the same run, the longer one counts.
    """
    by_description: dict[str, dict[int, RunData]] = {}
    for run in runs:
        carries = None if run.federation.adam_after is None else ()
        anonymous = dataclasses.replace(run.federation, seed=0, round_timeout_s=1.0, adam_after=carries, adam_digest="")
        seeds = by_description.setdefault(federation_to_toml(anonymous), {})
        kept = seeds.get(run.federation.seed)
        if kept is None or len(run.records) > len(kept.records):
            seeds[run.federation.seed] = run
    members = [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in by_description.values()]
    members.sort(key=lambda group: _order(group[0].federation))
    federations = [group[0].federation for group in members]
    return [
        Group(label, group, ", ".join(_worlds_apart(group[0].federation, federations)))
        for label, group in zip(_labels(members), members, strict=True)
    ]


def cut_after(groups: Sequence[Group], count: int) -> list[Group]:
    """The groups without the rounds that end beyond that trajectory count. Raises UsageError if that leaves none."""
    cut = []
    for group in groups:
        runs = [(run, [record for record in run.records if record.trajectories_total <= count]) for run in group.runs]
        left = tuple(dataclasses.replace(run, records=records) for run, records in runs if records)
        if left:
            cut.append(dataclasses.replace(group, runs=left))
    if not cut:
        raise UsageError(f"no round ends within {count} trajectories")
    return cut


def honest_counts(run: RunData) -> Series:
    """Trajectories sampled by all agents and the server up to each round's end, without evaluation, shape (rounds,)."""
    sampled = [sum(record.sampled_trajectories.get(kind, 0) for kind in LEARNING) for record in run.records]
    return np.cumsum(sampled, dtype=np.float64)


def published_counts(run: RunData) -> Series:
    """The trajectory count of the published figures at each round's end, shape (rounds,)."""
    return np.array([record.trajectories_total for record in run.records], np.float64)


def evaluation_return(record: RoundRecord) -> float:
    """A round's mean greedy return."""
    return record.evaluation_return


def mean_curve(
    runs: Sequence[RunData],
    value: Value = evaluation_return,
    *,
    honest: bool = False,
    window: int = 1,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Curve | None:
    """Mean and 90 % interval (Student's t) of a figure, at every count where any of the runs has a round.

    Between its rounds a run is interpolated. `window` rounds, centred, are averaged first. None where the runs have no
    such figure, or no count in common.
    """
    lines = []
    for run in runs:
        counts = honest_counts(run) if honest else published_counts(run)
        points = [(count, y) for count, record in zip(counts, run.records, strict=True)
                  if (y := value(record)) is not None]  # fmt: skip
        if not points:
            return None
        x, y = np.array(points, np.float64).T
        lines.append((x, centred_mean(y, window)))
    start, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    grid = np.unique(np.concatenate([x for x, _ in lines]))
    grid = grid[(start <= grid) & (grid <= end)]
    if not grid.size:
        return None
    values = np.array([np.interp(grid, x, y) for x, y in lines])
    return Curve(grid, values.mean(axis=0), half_width(values), bounds)


def observed_returns(runs: Iterable[RunData]) -> tuple[float, float]:
    """The least and the greatest evaluation return of any round of these runs."""
    returns = [record.evaluation_return for run in runs for record in run.records]
    finite = [value for value in returns if math.isfinite(value)]
    return min(finite, default=-math.inf), max(finite, default=math.inf)


def half_width(values: Series) -> Series | None:
    """Half the 90 % interval of the mean over the first axis, by Student's t; None for a single value."""
    count = len(values)
    if count < 2:
        return None
    quantile = T_QUANTILES[count - 2] if count - 2 < len(T_QUANTILES) else NORMAL_QUANTILE
    return np.asarray(quantile * values.std(axis=0, ddof=1) / math.sqrt(count))


def centred_mean(values: Series, window: int) -> Series:
    """The mean over up to `window` values around each, shape (n,); fewer towards the ends, so that nothing lags."""
    reach = min(window - 1, len(values) - 1) // 2
    sums = np.concatenate(([0.0], np.cumsum(values)))
    places = np.arange(len(values))
    spread = np.minimum(reach, np.minimum(places, len(values) - 1 - places))
    return np.asarray((sums[places + spread + 1] - sums[places - spread]) / (2 * spread + 1))


def first_reach(curve: Curve, target: float) -> float | None:
    """The first count at which the curve is at `target` or above, or None."""
    reached = np.flatnonzero(curve.mean >= target)
    return float(curve.counts[reached[0]]) if reached.size else None


def _order(federation: Federation) -> tuple[Any, ...]:
    attacks = sorted(attack.label for attack in federation.byzantine.values())
    known_methods = list(ALGORITHM_TITLES)
    name = federation.algorithm.name
    method = known_methods.index(name) if name in known_methods else len(known_methods)
    task = federation.task.name
    known = list(TASKS).index(task) if task in TASKS else len(TASKS)
    return known, task, method, method_of(federation), federation.agents, len(attacks), attacks


def _labels(members: Sequence[tuple[RunData, ...]]) -> list[str]:
    """A label for each group: method, K, B, and the task's settings in which groups of that label differ."""
    federations = [group[0].federation for group in members]
    plain = [_plain_label(federation) for federation in federations]
    keys = [
        (federation.task.name, label, tuple((i, federation.byzantine[i].label) for i in sorted(federation.byzantine)))
        for federation, label in zip(federations, plain, strict=True)
    ]
    labels = []
    for federation, label, key in zip(federations, plain, keys, strict=True):
        alike = [task_to_fields(other.task) for other, other_key in zip(federations, keys, strict=True)
                 if other_key == key]  # fmt: skip
        own = task_to_fields(federation.task)
        apart = [f"{name}={own[name]}" for name in own if any(other[name] != own[name] for other in alike)]
        labels.append(", ".join([label, *apart, *_worlds_apart(federation, federations)]))
    return labels


def _worlds_apart(federation: Federation, others: Sequence[Federation]) -> list[str]:
    """What sets the agents' worlds apart from those of other groups: as little as will do."""
    if len({other.worlds_label for other in others}) == 1:
        return []
    drawn = [other.heterogeneity for other in others if other.heterogeneity is not None]
    if drawn and any(one.ranges != drawn[0].ranges for one in drawn):
        return [federation.worlds_label or "one world"]
    own = federation.heterogeneity
    parts = [] if own is None else [f"spread={own.spread:g}"]
    if federation.environments:
        parts.append(f"worlds={len(federation.environments)}")
    return parts or ["one world"]


def _plain_label(federation: Federation) -> str:
    byzantine = f", B={len(federation.byzantine)}" if federation.byzantine else ""
    carried = "" if federation.adam_after is None else ", Adam carried over"
    networks = ", published networks" if federation.published_networks else ""
    return f"{method_of(federation)} K={federation.agents}{byzantine}{carried}{networks}"
