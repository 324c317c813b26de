"""`fedpg figure`: runs of one description are one curve, whose mean and interval are those of its seeds."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode, UsageError
from fedpg_common.federation import Federation
from fedpg_common.shipped import ALGORITHM_TITLES
from fedpg_lab.figures.comparison import draw_filter, draw_returns, panels_of
from fedpg_lab.figures.curves import (
    T_QUANTILES,
    centred_mean,
    cut_after,
    first_reach,
    group_runs,
    half_width,
    honest_counts,
    mean_curve,
)
from fedpg_lab.figures.distances import draw_distances
from fedpg_lab.figures.parts import legend_below, seeds_of
from fedpg_lab.figures.published import published_for
from fedpg_lab.figures.scaling import draw_scaling, log_ticks, reachable
from fedpg_lab.runs.folders import RunData
from fedpg_server.learning.records import RoundRecord
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from support.lab import Command, write_run
from support.protocol import make_round_record


def records(counts: Sequence[int], returns: Sequence[float]) -> list[RoundRecord]:
    return [
        make_round_record(number, trajectories_total=count, evaluation_returns=(value,))
        for number, (count, value) in enumerate(zip(counts, returns, strict=True), start=1)
    ]


def run_of(federation: Federation, counts: Sequence[int], returns: Sequence[float]) -> RunData:
    return RunData(Path(f"seed-{federation.seed}"), federation, records(counts, returns))


def cartpole(agents: int = 5, seed: int = 0, **changes: object) -> Federation:
    fields: dict[str, Any] = {"agents": agents, "seed": seed, "trajectories": 40, **changes}
    return describe("CartPole-v1", **fields)


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


def test_a_figure_ends_where_it_is_told_to() -> None:
    runs = [run_of(describe("CartPole-v1", agents=10, seed=seed), [100, 600], [10.0, 90.0]) for seed in (0, 1)]
    late = run_of(describe("CartPole-v1", agents=3), [700], [20.0])
    (group,) = cut_after(group_runs([*runs, late]), 599)
    assert [[record.trajectories_total for record in run.records] for run in group.runs] == [[100], [100]]
    (axes,) = draw_returns([group], honest=False, window=1).axes
    assert len(axes.lines) == 1, "published points beyond the end are not drawn"
    with pytest.raises(UsageError, match="no round ends within 50 trajectories"):
        cut_after(group_runs(runs), 50)


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


def test_the_command_writes_png_and_svg_the_same_for_the_same_runs(tmp_path: Path, fedpg: Command) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "runs" / f"seed-{seed}", cartpole(seed=seed, byzantine=1), records([16, 48], [1.0, 2.0]))
    for kind in ("returns", "filter", "distances"):
        out = tmp_path / f"{kind}.svg"
        assert fedpg("figure", tmp_path / "runs", "--kind", kind, "--out", out)[0] == 0
        once = out.read_bytes()
        code, text, error = fedpg("figure", tmp_path / "runs", "--kind", kind, "--out", out)
        assert (code, error) == (0, "")
        drawn = "1 run" if kind == "distances" else "2 runs"  # distances are those of the first seed
        assert text.startswith(f"Drew {drawn} of 1 federation: ")
        assert out.read_bytes() == once
        assert ElementTree.fromstring(once).tag.endswith("svg")
        assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_an_unfinished_run_is_drawn_and_named(tmp_path: Path, fedpg: Command) -> None:
    folder = write_run(tmp_path / "run", cartpole(), records([16], [1.0]))
    code, _, error = fedpg("figure", folder, "--out", tmp_path / "figure.png")
    assert (code, error) == (0, f"fedpg: {folder} is at 16 of 40 trajectories\n")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["empty"], ExitCode.STORAGE, "there is no run in empty"),
        (["nowhere"], ExitCode.STORAGE, "there is no folder nowhere"),
        (["young"], ExitCode.STORAGE, "no run in young has ended a round yet"),
        (["damaged"], ExitCode.STORAGE, "damaged/run.sqlite"),
        (["run", "--out", "figure.jpg"], ExitCode.USAGE, "a picture is a .png or .svg file, not 'figure.jpg'"),
        (["run", "--out", "no/figure.png"], ExitCode.STORAGE, "there is no folder no"),
        (["run", "--out", "taken.png"], ExitCode.STORAGE, "the picture taken.png cannot be written: Is a directory"),
        (["run", "--smooth", "0"], ExitCode.USAGE, "--smooth must be 1 round or more"),
        (["run", "--kind", "scaling"], ExitCode.USAGE, "in several sizes, and these have K = 5"),
        (["mean", "--kind", "filter"], ExitCode.USAGE, "none of these runs has an aggregator that filters"),
        (["mean", "--kind", "distances"], ExitCode.USAGE, "there is nothing to measure distances from"),
    ],
)
def test_bad_input_is_one_sentence_and_an_exit_code(
    arguments: list[str], code: ExitCode, sentence: str, tmp_path: Path, fedpg: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "taken.png", "damaged"):
        Path(folder).mkdir()
    Path("damaged/run.sqlite").write_bytes(b"SQLite format 3\0 and no more")
    write_run(Path("run"), cartpole(), records([40], [1.0]))
    write_run(Path("young"), cartpole(), [])
    plain = [replace(record, rule="mean", weights=None, centre_distances={}) for record in records([40], [1.0])]
    write_run(Path("mean"), cartpole(algorithm="gpomdp"), plain)
    ended, _, text = fedpg("figure", *arguments)
    assert (ended, len(text.splitlines())) == (code, 1), text
    assert text.startswith("fedpg: ")
    assert sentence in text


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


def test_a_few_rounds_are_marked() -> None:
    for rounds, marker in ((1, "."), (5, "."), (20, "")):
        group = group_runs([run_of(cartpole(agents=7), [10 * (n + 1) for n in range(rounds)], [1.0] * rounds)])
        (axes,) = draw_returns(group, honest=True, window=1).axes
        assert axes.lines[0].get_marker() in (marker, marker or "None")


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


def test_what_a_scaling_figure_leaves_out_is_named(tmp_path: Path, fedpg: Command) -> None:
    for agents, extra in ((1, {}), (8, {}), (5, {"byzantine": 2})):
        federation = cartpole(agents=agents, **extra)
        write_run(tmp_path / "runs" / f"{agents}", federation, records([100, 200], [1.0, 50.0]))
    code, text, _ = fedpg("figure", tmp_path / "runs", "--kind", "scaling", "--out", tmp_path / "figure.png")
    assert code == 0
    assert "Drew 2 runs of 2 federations" in text
    assert "Left out FedPG-BR K=5, B=2, random-noise: no other size" in text


@pytest.mark.parametrize(("low", "high"), [(90, 190), (80, 130), (1, 1000), (300, 320), (5, 90000)])
def test_a_log_axis_has_several_labels(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert all(low <= tick <= high for tick in ticks)


def test_only_published_marks_that_are_drawn_are_in_the_legend() -> None:
    runs = [run_of(describe("CartPole-v1", agents=10), [100, 600], [10.0, 90.0])]
    texts = [text.get_text() for text in draw_returns(group_runs(runs), honest=False, window=1).legends[0].get_texts()]
    assert any("published: reaches" in text for text in texts)
    assert not any("published: final" in text for text in texts)


def test_without_attackers_there_is_no_empty_row_of_precision() -> None:
    run = run_of(cartpole(), [10, 20], [1.0, 2.0])
    (axes,) = draw_filter(group_runs([run]), honest=False, window=1).axes
    assert axes.get_ylabel() == "honest agents accepted"


def test_the_number_of_seeds_is_told_by_panel() -> None:
    assert [seeds_of(counts) for counts in ([1], [3, 3], [1, 2], [1, 5])] == [
        "1 seed", "3 seeds", "1 or 2 seeds, by panel", "1 to 5 seeds, by panel",
    ]  # fmt: skip
