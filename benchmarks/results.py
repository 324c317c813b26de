"""The tables of docs/results.md, from the runs kept in docs/data:

    python benchmarks/results.py [FOLDER]...

A count is where the mean curve of the seeds first reaches a return, as the published ones were read; "each seed" is the
mean over the seeds of where each first does so by itself, with its 90 % interval, and how many of them do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from fedpg_lab.figures.curves import Group, find_runs, first_reach, group_runs, half_width, mean_curve
from fedpg_lab.figures.published import published_targets
from fedpg_lab.figures.tables import RESULTS, Row, row_of
from fedpg_lab.runs.folders import trajectories_to_reach

DATA = Path(__file__).resolve().parent.parent / "docs" / "data"
Columns = Mapping[str, Callable[[Row], str]]


def each_seed(row: Row) -> str:
    """For each published return of the task: where a seed's own curve first reaches it."""
    parts = []
    for target in targets_of(row):
        counts = [trajectories_to_reach(run, target) for run in row.group.runs]
        known = np.array([[count] for count in counts if count is not None], np.float64)
        if known.size:
            width = half_width(known)
            interval = "" if width is None else f" ± {float(width[0]):,.0f}"
            reached = "" if len(known) == len(counts) else f" ({len(known)} of {len(counts)})"
            parts.append(f"{target:g} at {float(known.mean()):,.0f}{interval}{reached}")
    return ", ".join(parts) or "–"


def both_axes(row: Row) -> str:
    """Where the mean curve reaches each return, per participant and sampled by all together."""
    parts = []
    for target in targets_of(row):
        ours = row.reaches.get(target)
        curve = mean_curve(row.group.runs, honest=True)
        in_all = None if curve is None else first_reach(curve, target)
        if ours is not None and in_all is not None:
            parts.append(f"{target:g}: {ours:,.0f} / {in_all:,.0f}")
    return ", ".join(parts) or "–"


def targets_of(row: Row) -> list[float]:
    """The returns that were published for the row's curve, or else for any of its task."""
    own = row.published.reaches if row.published else {}
    return sorted(own) or published_targets(row.federation)


WHO: Columns = {name: RESULTS[name] for name in ("task", "method", "K", "attack", "seeds", "trajectories")}
LEARNED: Columns = {
    **WHO,
    "final": RESULTS["final return"],
    "published": RESULTS["published"],
    "mean curve reaches (published)": RESULTS["reaches at (published)"],
    "each seed reaches": each_seed,
}
FILTERED: Columns = {
    **WHO,
    "per participant / by all together": both_axes,
    "sampled by all at the end": lambda row: f"{row.honest_trajectories:,.0f}",
    "honest accepted": lambda row: percent(row.accepted_honest),
    "Byzantine accepted": lambda row: percent(row.accepted_byzantine),
    "rounds by rule": lambda row: ", ".join(f"{name} {percent(part)}" for name, part in row.rules.items()),
}


def percent(part: float | None) -> str:
    """A part as a percentage."""
    if part is None:
        return "–"
    return "below 1 %" if 0 < part < 0.005 else f"{100 * part:.0f} %"


def tables(folders: Sequence[Path]) -> list[str]:
    """Two Markdown tables, what was learned, and what was sampled and accepted."""
    rows = [row_of(group) for group in groups_of(folders)]
    texts = []
    for columns in (LEARNED, FILTERED):
        if not any(row.federation.byzantine for row in rows):
            columns = {name: render for name, render in columns.items() if not name.startswith(("attack", "Byz"))}
        lines = [list(columns), ["---"] * len(columns), *([render(row) for render in columns.values()] for row in rows)]
        texts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return texts


def groups_of(folders: Sequence[Path]) -> list[Group]:
    """The groups of the runs kept in these folders."""
    return group_runs(find_runs(folders))


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    for folders in [arguments.folders] if arguments.folders else [[place] for place in sorted(DATA.iterdir())]:
        print(f"{', '.join(folder.name for folder in folders)}:\n\n" + "\n".join(tables(folders)))


if __name__ == "__main__":
    main()
