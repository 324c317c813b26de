"""`fedpg figure`: runs of one description are one curve, whose mean and interval are those of its seeds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fedpg_lab.figures.comparison import draw_returns, panels_of
from fedpg_lab.figures.curves import (
    T_QUANTILES,
    centred_mean,
    first_reach,
    group_runs,
    half_width,
    honest_counts,
    mean_curve,
)
from fedpg_lab.figures.parts import seeds_of
from fedpg_lab.runs.folders import RunData
from hypothesis import given
from hypothesis import strategies as st
from support.curves import cartpole, records, run_of


def test_the_quantiles_are_those_of_students_t() -> None:
    for freedom, quantile in enumerate(T_QUANTILES, start=1):
        x = np.linspace(0.0, quantile, 20_001)
        scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
        density = scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2)
        assert 0.5 + float(np.trapezoid(density, x)) == pytest.approx(0.95, abs=1e-4)


def test_seeds_are_interpolated_to_a_common_axis_and_averaged() -> None:
    runs = [run_of(cartpole(seed=0), [10, 30], [0.0, 20.0]), run_of(cartpole(seed=1), [20, 40], [30.0, 50.0])]
    curve = mean_curve(runs)
    assert curve is not None
    assert curve.counts.tolist() == [20, 30]  # what both have reached
    assert curve.mean.tolist() == [(10 + 30) / 2, (20 + 40) / 2]
    deviation = math.sqrt(2 * 10.0**2)  # of 10 and 30, and of 20 and 40
    assert curve.half_width is not None
    assert curve.half_width.tolist() == pytest.approx([6.314 * deviation / math.sqrt(2)] * 2)
    assert first_reach(curve, 21.0) == 30
    assert first_reach(curve, 31.0) is None


def test_one_seed_has_no_interval_and_seeds_without_a_common_count_no_curve() -> None:
    alone = mean_curve([run_of(cartpole(), [10, 30], [1.0, 2.0])])
    assert alone is not None
    assert alone.half_width is None
    assert half_width(np.ones((40, 1))) == pytest.approx(0.0)
    assert mean_curve([run_of(cartpole(), [10], [1.0]), run_of(cartpole(), [20], [1.0])]) is None


def test_the_honest_axis_counts_all_that_learning_sampled() -> None:
    sampled = {"agents": 80, "inner": 8, "aborted": 4, "evaluation": 10}
    rounds = [replace(record, sampled_trajectories=sampled) for record in records([16, 32], [1.0, 2.0])]
    run = RunData(Path("run"), cartpole(), rounds)
    assert honest_counts(run).tolist() == [92, 184]
    curve = mean_curve([run], honest=True)
    assert curve is not None
    assert curve.counts.tolist() == [92, 184]


@given(st.integers(1, 40), st.integers(1, 60))
def test_smoothing_lags_nowhere(window: int, count: int) -> None:
    line = np.arange(count, dtype=np.float64)
    assert centred_mean(line, window) == pytest.approx(line)


def test_smoothing_averages_the_rounds_around() -> None:
    assert centred_mean(np.array([0.0, 3.0, 0.0, 0.0, 6.0]), 3).tolist() == [0.0, 1.0, 1.0, 2.0, 6.0]


def test_runs_that_differ_only_in_the_seed_are_one_group() -> None:
    short, long = run_of(cartpole(seed=1), [10], [1.0]), run_of(cartpole(seed=1), [10, 20], [1.0, 2.0])
    others = [
        run_of(cartpole(seed=0, round_timeout_s=5.0), [10], [1.0]),
        run_of(cartpole(agents=1), [10], [1.0]),
        run_of(cartpole(byzantine=2), [10], [1.0]),
        run_of(cartpole(sigma=0.5), [10], [1.0]),
        run_of(cartpole(algorithm="svrpg"), [10], [1.0]),
    ]
    groups = group_runs([short, long, *others])
    assert [(group.label, len(group.runs)) for group in groups] == [
        ("SVRPG K=5", 1),
        ("FedPG-BR K=1", 1),
        ("FedPG-BR K=5, sigma=0.06", 2),
        ("FedPG-BR K=5, sigma=0.5", 1),
        ("FedPG-BR K=5, B=2", 1),
    ]
    assert groups[2].runs == (others[0], long)  # the same run twice counts once


def test_federations_without_attackers_stand_in_every_panel_of_their_task() -> None:
    runs = [run_of(cartpole(**kind), [10], [1.0]) for kind in (
        {"agents": 1}, {"byzantine": 2}, {"byzantine": 2, "attack": "sign-flipping"},
    )]  # fmt: skip
    panels = panels_of(group_runs(runs))
    assert [panel.title for panel in panels] == [
        "CartPole-v1, no attack and random-noise",
        "CartPole-v1, no attack and sign-flipping",
    ]
    assert [[group.label for group in panel.groups] for panel in panels] == [["FedPG-BR K=1", "FedPG-BR K=5, B=2"]] * 2


def test_an_interval_that_leaves_the_panel_is_told() -> None:
    runs = [
        run_of(cartpole(agents=7, seed=seed), [10, 20, 30], [0.0, between, value])
        for seed, between, value in ((0, -900.0, 10.0), (1, 1000.0, 90.0))
    ]
    (axes,) = draw_returns(group_runs(runs), honest=True, window=1).axes
    assert "(intervals reach down to -900 and up to 1,000)" in axes.get_xlabel(), "no further than what was observed"
    near = [run_of(cartpole(agents=7, seed=seed), [10, 20], [0.0, value]) for seed, value in ((0, 90.0), (1, 91.0))]
    (axes,) = draw_returns(group_runs(near), honest=True, window=1).axes
    assert "intervals" not in axes.get_xlabel(), "they are drawn whole"
    low, high = axes.get_ylim()
    assert low < 0
    assert high > 91


def test_an_interval_ends_where_no_return_has_been() -> None:
    group = [run_of(cartpole(agents=7, seed=seed), [10, 20], [9.0, value]) for seed, value in ((0, 100.0), (1, 500.0))]
    other = [run_of(cartpole(agents=4), [10, 20], [8.0, 30.0])]
    (axes,) = draw_returns(group_runs([*group, *other]), honest=True, window=1).axes
    (shade,) = axes.collections
    heights = np.concatenate([np.asarray(path.vertices) for path in shade.get_paths()])[:, 1]
    assert (min(heights), max(heights)) == (8.0, 500.0), "the least and the greatest return in the panel"


def test_the_number_of_seeds_is_told_by_panel() -> None:
    assert [seeds_of(counts) for counts in ([1], [3, 3], [1, 2], [1, 5])] == [
        "1 seed", "3 seeds", "1 or 2 seeds, by panel", "1 to 5 seeds, by panel",
    ]  # fmt: skip
