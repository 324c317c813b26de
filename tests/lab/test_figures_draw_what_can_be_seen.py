"""Figures end where they should, mark what leaves the panel, and name no more than they draw."""

from __future__ import annotations

import numpy as np
import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import UsageError
from fedpg_lab.figures.comparison import draw_returns
from fedpg_lab.figures.curves import (
    cut_after,
    group_runs,
)
from fedpg_lab.figures.parts import legend_below
from fedpg_lab.figures.scaling import log_ticks
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from support.curves import cartpole, run_of


def test_a_figure_ends_where_it_is_told_to() -> None:
    runs = [run_of(describe("CartPole-v1", agents=10, seed=seed), [100, 600], [10.0, 90.0]) for seed in (0, 1)]
    late = run_of(describe("CartPole-v1", agents=3), [700], [20.0])
    (group,) = cut_after(group_runs([*runs, late]), 599)
    assert [[record.trajectories_total for record in run.records] for run in group.runs] == [[100], [100]]
    (axes,) = draw_returns([group], honest=False, window=1).axes
    assert len(axes.lines) == 1, "published points beyond the end are not drawn"
    with pytest.raises(UsageError, match="no round ends within 50 trajectories"):
        cut_after(group_runs(runs), 50)


@pytest.mark.parametrize(
    ("returns", "lowest_shown"),
    [
        ([-10.0, -1000.0, 90.0], -85.0),  # a dip from which the curve recovers is cut
        ([-10.0, -200.0, -1000.0], -1000.0),  # a fall is shown
        ([-10.0, -20.0, 90.0], -20.0),
        ([10.0, 7.0, 8.0, 9.8, 9.9], 7.0),  # what hardly rises is shown whole
        ([10.0, 3.0, 3.0, 4.0, 9.9], 3.0),
        ([5.0, 4.0, -900.0, -800.0, -900.0, 5.5], -900.0),  # half of the curve is no dip
    ],
)
def test_a_dip_is_cut_and_an_end_is_shown(returns: list[float], lowest_shown: float) -> None:
    group = group_runs([run_of(cartpole(agents=7), [10 * (n + 1) for n in range(len(returns))], returns)])
    (axes,) = draw_returns(group, honest=True, window=1).axes
    low, high = axes.get_ylim()
    assert low == pytest.approx(lowest_shown - 0.05 * (max(returns) - lowest_shown))
    assert high > max(returns)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=8))
def test_a_legend_is_no_wider_than_its_figure(lengths: list[int]) -> None:
    figure = Figure(figsize=(6.5, 5.0), layout="constrained")
    legend_below(figure, [Line2D([], [], label=" ".join(["word"] * (1 + length // 5))) for length in lengths])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1


def test_a_curve_that_leaves_the_panel_is_marked_with_its_lowest_value() -> None:
    group = group_runs([run_of(cartpole(agents=7), [10, 20, 30], [-10.0, -1134.0, 90.0])])
    figure = draw_returns(group, honest=True, window=1)
    (axes,) = figure.axes
    (text,) = [text for text in axes.texts if "falls to" in text.get_text()]
    assert text.get_text() == "falls to -1,134"
    (mark,) = [line for line in axes.lines if line.get_marker() == "v"]
    assert np.asarray(mark.get_xdata()).tolist() == [2 * 88], "at the end of the second round"
    assert any("leaves the panel" in entry.get_text() for entry in figure.legends[0].get_texts())


def test_a_few_rounds_are_marked() -> None:
    for rounds, marker in ((1, "."), (5, "."), (20, "")):
        group = group_runs([run_of(cartpole(agents=7), [10 * (n + 1) for n in range(rounds)], [1.0] * rounds)])
        (axes,) = draw_returns(group, honest=True, window=1).axes
        assert axes.lines[0].get_marker() in (marker, marker or "None")


@pytest.mark.parametrize(("low", "high"), [(90, 190), (80, 130), (1, 1000), (300, 320), (5, 90000)])
def test_a_log_axis_has_several_labels(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert all(low <= tick <= high for tick in ticks)
