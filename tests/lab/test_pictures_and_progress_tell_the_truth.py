"""The return curve, the verdict map and the progress line show what is in the records, in every odd case too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_lab.figures.one_run import RULE_COLOURS, plot_run, plot_runs, rule_colours, smooth
from fedpg_lab.local.describe import PaceMeter, describe_state
from fedpg_lab.runs.folders import RunData, final_return, summarize, trajectories_to_reach
from fedpg_server.learning.records import RoundRecord
from support.lab import small_federation

RECORD = RoundRecord(
    round_number=1, parameters_digest="00" * 32, batch_size=16, inner_steps=3, inner_steps_taken=3,
    inner_aborted=False, trajectories_total=20, sampled_trajectories={"agents": 64}, environment_steps={"agents": 900},
    rule="R1", has_mu=True, weights={1: 0.0, 2: 1.0, 3: 1.0}, figures={"radius": 0.1},
    accepted=(2, 3), filtered=(1,), absent=(4,), median_agent=2, distances={"good": 0.05},
    centre_distances={1: 3.0, 2: 0.0, 3: 0.05}, detection={"recall": 1.0}, evaluation_returns=(10.0, 20.0),
    evaluation_lengths=(10.0, 20.0), training_return=12.0, training_length=12.0, loss=0.1, gradient_norm=1.0,
    inner_gradient_norms=(1.0,), importance_ratios=(1.0,), learning_rate=1e-3, skipped_steps=0, seconds=0.5,
)  # fmt: skip


def run_of(*records: RoundRecord, agents: int = 4) -> RunData:
    return RunData(Path("a-run"), small_federation(agents=agents), list(records))


def rounds(count: int) -> list[RoundRecord]:
    return [
        replace(RECORD, round_number=n, trajectories_total=20 * n, evaluation_returns=(float(n),))
        for n in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    "records",
    [
        [RECORD],
        rounds(30),
        [replace(RECORD, accepted=(), filtered=(1, 2, 3), rule="none", training_return=None, median_agent=None)],
        [replace(RECORD, rule="mean", accepted=(1, 2, 3), filtered=())],
    ],
)
def test_every_run_has_a_picture(tmp_path: Path, records: list[RoundRecord]) -> None:
    plot_run(run_of(*records), tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_a_hundred_agents_fit_in_a_picture(tmp_path: Path) -> None:
    plot_run(run_of(RECORD, agents=100), tmp_path / "run.png")
    plot_runs([run_of(*rounds(5)), run_of(*rounds(8))], tmp_path / "seeds.png")
    assert (tmp_path / "seeds.png").stat().st_size > 10_000


def test_smoothing_is_the_trailing_mean() -> None:
    assert smooth([1.0, 2.0, 3.0, 4.0], window=2).tolist() == [1.0, 1.5, 2.5, 3.5]


def test_the_summary_counts_what_the_records_say() -> None:
    summary = summarize(run_of(*rounds(40)))
    assert summary["environment_steps"] == {"agents": 40 * 900}
    assert summary["accepted_fraction_byzantine"] == 0.0
    assert summary["accepted_fraction_honest"] == 1.0
    assert summary["rounds_by_rule"] == {"R1": 40}
    assert summary["rounds_without_gradient"] == 0
    assert summary["rounds_with_absent_agents"] == 40
    assert summary["final_return"] == final_return(run_of(*rounds(40))) == 39.5  # the last 5 %: rounds 39 and 40
    assert trajectories_to_reach(run_of(*rounds(40)), 12.0) == 240
    assert trajectories_to_reach(run_of(*rounds(40)), 41.0) is None
    assert summarize(run_of())["final_return"] is None


def status(trajectories: int, steps: int) -> pb.GetStatusReply:
    latest = pb.RoundSummary(round=2, evaluation_return=123.4, accepted=[2, 3], filtered=[1], absent=[4])
    return pb.GetStatusReply(
        trajectories=trajectories, trajectories_target=1000, environment_steps=steps, latest=latest
    )


def test_pace_and_time_left_are_measured_from_the_first_state() -> None:
    meter = PaceMeter()
    assert meter.measure(status(100, 5000), now_s=10.0).left_s is None
    pace = meter.measure(status(200, 15000), now_s=20.0)
    assert pace.steps_per_s == 1000.0
    assert pace.left_s == 80.0
    line = describe_state(status(200, 15000), pace)
    assert line == "return 123.4  accepted 2  filtered 1  1:20 left  round 2  absent 1  1,000 steps/s"
    waiting = pb.GetStatusReply(agents=[pb.AgentStatus(presence=pb.AgentStatus.PRESENCE_JOINED), pb.AgentStatus()])
    assert describe_state(waiting, pace) == "1 of 2 agents joined"


def test_every_rule_has_a_colour_of_its_own_and_the_known_ones_keep_theirs() -> None:
    assert list(rule_colours(["R2", "R1", "R2"]).items()) == [("R1", RULE_COLOURS["R1"]), ("R2", RULE_COLOURS["R2"])]
    colours = rule_colours(["krum", "R1", "a-word"])
    assert list(colours) == ["R1", "krum", "a-word"]
    assert len(set(colours.values())) == 3


def test_a_picture_of_any_rule(tmp_path: Path) -> None:
    plot_run(run_of(replace(RECORD, rule="krum"), replace(RECORD, trajectories_total=40)), tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 10_000
