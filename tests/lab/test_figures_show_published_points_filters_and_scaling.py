"""What was published, whom a filter finds, distances and scaling are drawn where there is something to draw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fedpg_common.descriptions import describe
from fedpg_common.shipped import ALGORITHM_TITLES
from fedpg_lab.figures.comparison import draw_filter, draw_returns
from fedpg_lab.figures.curves import (
    group_runs,
)
from fedpg_lab.figures.distances import draw_distances
from fedpg_lab.figures.published import published_for
from fedpg_lab.figures.scaling import draw_scaling, reachable
from fedpg_lab.runs.folders import RunData
from matplotlib.patches import StepPatch
from support.curves import cartpole, records, run_of


def test_published_points_are_found_by_task_method_size_and_attack() -> None:
    curve = published_for(describe("LunarLander-v3", agents=10))
    assert curve is not None
    assert (curve.environment, curve.final, curve.reaches) == ("LunarLander-v2", 198, {0: 980, 100: 1520, 180: 2700})
    attacked = published_for(describe("HalfCheetah-v5", byzantine=3, attack="constant-action", algorithm="svrpg"))
    assert attacked is not None
    assert (attacked.final, attacked.reaches, attacked.trajectories) == (73, {}, 10000)
    # What was published as random action is a constant one; nothing was published for actions that are random.
    assert published_for(describe("HalfCheetah-v5", byzantine=3, attack="random-action")) is None
    assert published_for(describe("CartPole-v1", agents=4)) is None
    assert published_for(describe("CartPole-v1", byzantine=3)) is None
    assert published_for(describe("HalfCheetah-v5", byzantine=2)) is None
    every = [published_for(describe(task, agents=K, algorithm=method)) for method in ALGORITHM_TITLES
             for task in ("CartPole-v1", "LunarLander-v3", "HalfCheetah-v5") for K in (1, 3, 10)]  # fmt: skip
    assert sum(curve is not None for curve in every) == 15  # figure 1: five curves a task


def test_returns_are_drawn_with_the_published_points_that_lie_on_the_axis() -> None:
    runs = [run_of(describe("CartPole-v1", agents=10, seed=seed), [100, 600], [10.0, 90.0]) for seed in (0, 1)]
    (axes,) = draw_returns(group_runs(runs), honest=False, window=1).axes
    curve, *points = axes.lines
    assert np.asarray(curve.get_ydata()).tolist() == [10.0, 90.0]
    assert [(float(p.get_xdata()[0]), float(p.get_ydata()[0])) for p in points] == [(297, 200), (529, 400)]  # type: ignore[index, arg-type]
    (axes,) = draw_returns(group_runs(runs), honest=True, window=1).axes
    assert len(axes.lines) == 1


def test_precision_and_recall_are_drawn_where_there_is_somebody_to_find() -> None:
    found = [replace(record, detection={"precision": 0.5, "recall": 1.0}) for record in records([10, 20], [1.0, 2.0])]
    runs = [RunData(Path("a"), cartpole(byzantine=1), found), RunData(Path("b"), cartpole(), found)]
    precision, recall, accepted = draw_filter(group_runs(runs), honest=False, window=1).axes
    assert [np.asarray(line.get_ydata()).tolist() for line in precision.lines] == [[0.5, 0.5]]
    assert [np.asarray(line.get_ydata()).tolist() for line in recall.lines] == [[1.0, 1.0]]
    # Agents 1 to 3 are accepted and 4 is not; agent 1 is Byzantine in the first run only.
    assert sorted(np.asarray(line.get_ydata())[0] for line in accepted.lines) == [pytest.approx(2 / 3), 0.75]


def test_scaling_shows_what_each_size_needed_and_the_theorems_slope() -> None:
    runs = [
        run_of(cartpole(agents=1), [1000, 2000], [100.0, 400.0]),
        run_of(cartpole(agents=8), [300, 600], [3.0, 450.0]),
    ]
    groups = group_runs(runs)
    assert reachable(groups) == 400
    (axes,) = draw_scaling(groups, target=None, honest=False).axes
    needed, theorem = (np.asarray(line.get_xydata()).tolist() for line in axes.lines[:2])
    assert needed == [[1, 2000], [8, 600]]
    assert theorem == [[1, 2000], [8, pytest.approx(500)]]  # 8^(2/3) = 4
    assert reachable(group_runs([run_of(cartpole(), [10], [-237.0])])) == -240


def test_a_radius_is_in_the_legend_where_a_rule_has_one() -> None:
    rounds = [replace(record, figures={}, centre_distances={1: 0.5, 3: 2.0}) for record in records([16], [1.0])]
    run = RunData(Path("run"), cartpole(byzantine=1), rounds)
    figure = draw_distances(group_runs([run]), honest=False)
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["honest agent", "Byzantine agent"]


def test_attackers_of_the_protocol_alone_have_nothing_to_be_found_by() -> None:
    voted = [
        replace(record, weights={1: 1.0, 2: 1.0, 3: 0.0}, accepted=(1, 2), filtered=(3,), detection={"precision": 0.0})
        for record in records([16, 32], [1.0, 2.0])
    ]
    of_protocol = describe("CartPole-v1", agents=3, byzantine=1, attack="replay")
    of_learning = describe("CartPole-v1", agents=3, byzantine=1, attack="alie")
    runs = [RunData(Path(str(place)), one, voted) for place, one in enumerate((of_protocol, of_learning))]
    figure = draw_filter(group_runs(runs), honest=False, window=1)
    by_title = {axes.get_title(): place for place, axes in enumerate(figure.axes) if axes.get_title()}
    replay = figure.axes[next(place for title, place in by_title.items() if "replay" in title)]
    assert [text.get_text() for text in replay.texts] == ["no bad vote to find:\nhostile to the protocol alone"]
    assert not replay.lines


def test_the_radius_is_as_wide_as_its_round_and_the_median_agent_is_drawn() -> None:
    rounds = [
        replace(record, figures={"radius": radius}, centre_distances={1: 0.5, 2: 0.0, 3: 2.0, 4: 7.5}, median_agent=2)
        for record, radius in zip(records([16, 32], [1.0, 2.0]), (1.0, 3.0), strict=True)
    ]
    figure = draw_distances(group_runs([RunData(Path("run"), cartpole(byzantine=1), rounds)]), honest=False)
    (axes,) = figure.axes
    (steps,) = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    values, edges, _ = steps.get_data()
    assert (values.tolist(), edges.tolist()) == ([1.0, 3.0], [0.0, 16.0, 32.0])
    medians = [line for line in axes.lines if line.get_gid() == "median"]
    assert [np.asarray(line.get_xdata()).tolist() for line in medians] == [[16.0, 32.0]]
    assert 0 < float(np.asarray(medians[0].get_ydata())[0]) < 0.5
    dots = [line for line in axes.lines if line.get_gid() == "agents"]
    assert sum(len(np.asarray(line.get_xdata())) for line in dots) == 6


def test_only_published_marks_that_are_drawn_are_in_the_legend() -> None:
    runs = [run_of(describe("CartPole-v1", agents=10), [100, 600], [10.0, 90.0])]
    texts = [text.get_text() for text in draw_returns(group_runs(runs), honest=False, window=1).legends[0].get_texts()]
    assert any("published: reaches" in text for text in texts)
    assert not any("published: final" in text for text in texts)


def test_without_attackers_there_is_no_empty_row_of_precision() -> None:
    run = run_of(cartpole(), [10, 20], [1.0, 2.0])
    (axes,) = draw_filter(group_runs([run]), honest=False, window=1).axes
    assert axes.get_ylabel() == "honest agents accepted"
