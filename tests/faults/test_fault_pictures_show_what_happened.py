"""A scenario's picture shows each fault over all that happened, what each round took and what it lost."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fedpg_lab.faults.backend import FaultKind
from fedpg_lab.faults.costs import round_costs
from fedpg_lab.faults.history import FaultSpan, History, Wait
from fedpg_lab.faults.picture import LABEL_MAX, LANES_MAX, draw_scenario
from fedpg_lab.runs.folders import RunData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from support.fault_stories import (
    FEDERATION,
    PAUSE,
    RECORDS,
    happened,
    outcomes,
    reported,
)
from support.faults import plan, span


def drawn(history: History) -> Figure:
    run = RunData(Path("a-run"), FEDERATION, list(RECORDS))
    return draw_scenario(run, history, round_costs(RECORDS, history))


def shades(axes: Axes) -> list[tuple[float, float]]:
    """The spans that are shaded from the bottom of the axes to the top."""
    return [
        (patch.get_x(), patch.get_x() + patch.get_width())
        for patch in axes.patches
        if isinstance(patch, Rectangle) and (patch.get_y(), patch.get_height()) == (0, 1) and patch.get_alpha() == 0.12
    ]


def uprights(axes: Axes) -> set[float]:
    """Where there are lines from the bottom of the axes to the top."""
    ends = [
        np.asarray(line.get_xdata(), float).tolist() for line in axes.lines if len(np.asarray(line.get_xdata())) == 2
    ]
    return {left for left, right in ends if left == right}


def labels(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_picture_is_a_file_that_can_be_looked_at(tmp_path: Path) -> None:
    reported(tmp_path, outcomes())
    with Image.open(tmp_path / "faults.png") as picture:
        assert 1000 <= picture.width <= 3000
        assert 800 <= picture.height <= 3000
        assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 20, "there is something on it"
    assert 20_000 < (tmp_path / "faults.png").stat().st_size < 1_000_000


def test_each_fault_that_began_is_shaded_all_through_the_picture() -> None:
    history = happened()
    figure = drawn(history)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert shades(axes) == [(2.0, 6.0), (21.0, 30.5)]
        assert 8.0 in uprights(axes), "a restart is over at once"
    assert uprights(figure.axes[2]) == {2.0, 6.0, 8.0, 21.0, 30.5}, "the map hides the shades"
    assert labels(figure.axes[1]) == ["pause 1", "restart server", "kill 4, 5", "no quorum", "no answer"]
    left, right = figure.axes[0].get_xlim()
    assert left == 0
    assert 30.5 < right < 32, "the last heal is in sight"
    assert len({axes.get_xlim() for axes in figure.axes}) == 1


def test_the_picture_shows_what_each_round_took_and_lost() -> None:
    bars = [(bar.get_y(), bar.get_height()) for container in drawn(happened()).axes[3].containers for bar in container]
    assert bars[:6] == [(0, kept) for kept in (2.0, 2.0, 2.0, 2.0, 2.0, 2.0)]
    assert bars[6:] == [(2.0, lost) for lost in (0.0, 4.0, 0.0, 0.0, 12.0, 2.0)]


@pytest.mark.parametrize(
    ("history", "rows"),
    [
        (History(end_s=30.0), []),
        (History(end_s=30.0, silent=[Wait(1.0, 2.0, 1)]), ["no answer"]),
        (History(end_s=30.0, below_quorum=[Wait(1.0, 2.0, 1)]), ["no quorum"]),
        (History(end_s=30.0, faults=[FaultSpan(PAUSE, 3.0, 1)]), ["pause 1"]),
    ],
)
def test_every_history_has_a_picture(history: History, rows: list[str], tmp_path: Path) -> None:
    assert labels(drawn(history).axes[1]) == rows
    reported(tmp_path, outcomes(history))
    assert (tmp_path / "faults.png").stat().st_size > 10_000


def test_repetitions_share_a_row_and_many_faults_the_last() -> None:
    twice = [span(PAUSE, 1.0, 1, 2.0, 1), span(replace(PAUSE, number=9), 3.0, 1, 4.0, 1)]
    assert labels(drawn(History(faults=twice, end_s=30.0)).axes[1]) == ["pause 1"]
    many = [span(plan(n, FaultKind.KILL, *range(n, n + 30)), n, 1, n + 1.0, 1) for n in range(1, 20)]
    rows = labels(drawn(History(faults=many, end_s=30.0)).axes[1])
    assert len(rows) == LANES_MAX
    assert all(re.fullmatch(rf"kill .{{{LABEL_MAX - 6}}}…", row) for row in rows)
