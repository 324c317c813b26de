"""The command `fedpg figure`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fedpg_common.cli.ending import unwinding
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.files import shown, why_no_file
from fedpg_common.words import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fedpg_lab.figures.curves import Group

SUFFIXES = (".png", ".svg")


class Kind(StrEnum):
    """What a figure shows."""

    RETURNS = "returns"
    FILTER = "filter"
    DISTANCES = "distances"
    SCALING = "scaling"


Folders = Annotated[
    list[Path],
    typer.Argument(metavar="FOLDER...", help="Run folders, or folders that hold some.", show_default=False),
]

Out = Annotated[Path, typer.Option(help="The picture: FILE.png and FILE.svg are written.", metavar="FILE")]

KindOption = Annotated[Kind, typer.Option(help="What it shows; see above.")]

HonestAxis = Annotated[
    bool,
    typer.Option(
        "--honest-axis", help="Count all trajectories that the agents and the server sampled together.", metavar=""
    ),
]

Smooth = Annotated[
    int, typer.Option(help="Average this many rounds, centred, before the mean over seeds.", metavar="ROUNDS")
]

Until = Annotated[
    int | None,
    typer.Option(help="Draw no rounds beyond so many trajectories per participant.", metavar="N", show_default="all"),
]

Reach = Annotated[
    float | None,
    typer.Option(help="For scaling: the return to be reached.", metavar="RETURN", show_default="what all reach"),
]


def figure_command(
    folders: Folders,
    out: Out = Path("figure.png"),
    kind: KindOption = Kind.RETURNS,
    honest_axis: HonestAxis = False,
    smooth: Smooth = 1,
    until: Until = None,
    reach: Reach = None,
) -> None:
    """Draw runs as the paper does: several federations in one picture, mean and 90 % interval over seeds.

    Runs that differ only in the seed are one curve. Each task and attack has a panel; federations without attackers
    stand in all panels of their task. Published points of the same task, algorithm, K and attack are drawn on top.

    `returns`: evaluation return against trajectories.
    `filter`: the filter's precision and recall, and the part of the honest gradients that it accepts.
    `distances`: each agent's distance to the median vector, with the radius.
    `scaling`: trajectories needed to reach a return against the number of agents K, with the theorem's K^(-2/3).

    The axis is the published one, trajectories per participant, which counts a round of ten agents about like a round
    of one. `--honest-axis` counts them all.

    For example:

        fedpg figure runs/fedpg-br runs/svrpg --out cartpole.png
        fedpg figure runs --kind filter --smooth 10
        fedpg figure docs/data/figure-1 --until 1500

    Exit codes: 0 done; 2 bad option, or nothing of that kind in these runs; 6 no runs there, or a file cannot be used.
    """
    check_picture_path(out)
    if smooth < 1:
        raise UsageError(f"--smooth must be 1 round or more, not {smooth}")
    if until is not None and until < 1:
        raise UsageError(f"--until must be 1 trajectory or more, not {until}")
    from fedpg_lab.figures.curves import cut_after, find_runs, group_runs
    from fedpg_lab.figures.parts import save_figure
    from fedpg_lab.figures.scaling import name_in_task

    with unwinding():
        groups = group_runs(find_runs(folders))
        for run in (run for group in groups for run in group.runs if not run.is_complete):
            end, target = run.records[-1].trajectories_total, run.federation.task.trajectories
            typer.echo(f"fedpg: {shown(run.folder)} is at {end} of {target} trajectories", err=True)
        if until is not None:
            groups = cut_after(groups, until)
        png, svg = save_figure(draw(groups, kind, honest=honest_axis, window=smooth, target=reach), out)
    omitted = left_out(groups, kind)
    drawn = [group for group in groups if not any(group is other for other in omitted)]
    runs = sum(1 if kind is Kind.DISTANCES else len(group.runs) for group in drawn)
    typer.echo(f"Drew {count(runs, 'run')} of {count(len(drawn), 'federation')}: {shown(png)}, {shown(svg)}")
    if omitted:
        typer.echo(f"Left out {', '.join(map(name_in_task, omitted))}: {LEFT_OUT_BECAUSE[kind]}")


LEFT_OUT_BECAUSE = {
    Kind.RETURNS: "nothing to draw",
    Kind.FILTER: "its aggregator filters nobody",
    Kind.DISTANCES: "no gradient survived in any round, or the distances were not kept",
    Kind.SCALING: "no other size of the same task, algorithm and attack",
}


def left_out(groups: Sequence[Group], kind: Kind) -> list[Group]:
    """The groups that a picture of that kind does not show."""
    from fedpg_lab.figures.comparison import is_filtering
    from fedpg_lab.figures.distances import has_distances
    from fedpg_lab.figures.scaling import left_out as not_scaling

    if kind is Kind.FILTER:
        return [group for group in groups if not is_filtering(group)]
    if kind is Kind.DISTANCES:
        return [group for group in groups if not has_distances(group)]
    return not_scaling(groups) if kind is Kind.SCALING else []


def draw(groups: Sequence[Group], kind: Kind, *, honest: bool, window: int, target: float | None) -> Figure:
    """The picture of that kind. Raises UsageError if the runs have nothing of the kind."""
    from fedpg_lab.figures.comparison import draw_filter, draw_returns
    from fedpg_lab.figures.distances import draw_distances
    from fedpg_lab.figures.scaling import draw_scaling

    if kind is Kind.RETURNS:
        return draw_returns(groups, honest=honest, window=window)
    if kind is Kind.FILTER:
        return draw_filter(groups, honest=honest, window=window)
    if kind is Kind.DISTANCES:
        return draw_distances(groups, honest=honest)
    return draw_scaling(groups, target=target, honest=honest)


def check_picture_path(path: Path) -> None:
    """Raise UsageError for a suffix other than .png and .svg, StorageError if there is no folder to write in."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"a picture is a {' or '.join(SUFFIXES)} file, not {path.name!r}")
    if why := why_no_file(path):
        raise StorageError(f"the picture {shown(path)} cannot be written: {why}")
