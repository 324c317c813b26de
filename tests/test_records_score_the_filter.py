"""Records hold the right figures: distances among good and Byzantine agents and between, precision, recall, F1."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.federation import describe
from fedpg_common.parameters import digest
from fedpg_server.aggregation import Aggregate, Rule, pairwise_distances
from fedpg_server.learner import InnerReport, LearnerState, RoundPlan, RoundResult, Sampled
from fedpg_server.records import RoundRecord
from fedpg_server.report import make_record, score_filter
from fedpg_server.telemetry import scalars
from support import make_round_record

FEDERATION = describe("CartPole-v1", agents=5, byzantine=2)
"""Agents 1 and 2 are Byzantine."""


def aggregate(agents: tuple[int, ...], accepted: tuple[int, ...], positions: dict[int, float]) -> Aggregate:
    """Agents on a line: their distances are easy to see."""
    matrix = np.array([positions[agent] for agent in agents], np.float32).reshape(-1, 1)
    median = accepted[0] if accepted else None
    rule = Rule.R1 if accepted else Rule.NONE
    return Aggregate(None, rule, accepted, agents, pairwise_distances(matrix), radius=1.0, median_agent=median)


def record_of(result: Aggregate, reports: dict[int, bytes], before: int = 100) -> RoundRecord:
    theta = np.arange(3, dtype=np.float32)
    inner = InnerReport(steps_taken=2, aborted=True, sampled=Sampled(8, 160), dropped=Sampled(4, 70))
    outcome = RoundResult(
        LearnerState(theta, theta, theta, 2), result, gradient_norm=0.5, inner=inner, trajectories=17,
        evaluation_returns=(10.0, 30.0), evaluation_lengths=(10, 30), learning_rate=1e-3,
    )  # fmt: skip
    return make_record(outcome, RoundPlan(7, 16, 3), FEDERATION, reports, before, seconds=1.5)


def work(**fields: float) -> bytes:
    return pb.WorkReport(**fields).SerializeToString()  # type: ignore[arg-type]


def test_distances_are_means_over_pairs_by_kind() -> None:
    positions = {1: 10.0, 2: 14.0, 3: 0.0, 4: 1.0, 5: 3.0}
    record = record_of(aggregate((1, 2, 3, 4, 5), (4, 3, 5), positions), {})
    assert record.distances == pytest.approx(
        {"good": (1 + 3 + 2) / 3, "byzantine": 4.0, "between": (10 + 9 + 7 + 14 + 13 + 11) / 6}
    )
    assert record.median_distances == pytest.approx({1: 9.0, 2: 13.0, 3: 1.0, 4: 0.0, 5: 2.0})


def test_kinds_without_a_pair_are_missing() -> None:
    positions = {1: 10.0, 3: 0.0, 4: 1.0}
    assert set(record_of(aggregate((1, 3, 4), (3, 4), positions), {}).distances) == {"good", "between"}
    assert set(record_of(aggregate((3,), (3,), positions), {}).distances) == set()
    empty = record_of(aggregate((), (), positions), {})
    assert (empty.distances, empty.median_distances, empty.absent) == ({}, {}, (1, 2, 3, 4, 5))


@pytest.mark.parametrize(
    ("agents", "accepted", "scores"),
    [
        ((1, 2, 3, 4, 5), (3, 4, 5), {"precision": 1.0, "recall": 1.0, "f1": 1.0}),
        ((1, 2, 3, 4, 5), (1, 3, 4, 5), {"precision": 1.0, "recall": 0.5, "f1": 2 / 3}),
        ((1, 2, 3, 4, 5), (1, 4, 5), {"precision": 0.5, "recall": 0.5, "f1": 0.5}),
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), {"recall": 0.0, "f1": 0.0}),
        ((3, 4, 5), (3, 4, 5), {}),
        ((3, 4, 5), (3, 4), {"precision": 0.0}),
        ((1, 3, 4), (3, 4), {"precision": 1.0, "recall": 1.0, "f1": 1.0}),
    ],
)
def test_scores_count_only_who_submitted(
    agents: tuple[int, ...], accepted: tuple[int, ...], scores: dict[str, float]
) -> None:
    positions = dict.fromkeys(range(1, 6), 0.0)
    assert score_filter(aggregate(agents, accepted, positions), FEDERATION) == pytest.approx(scores)


def test_figures_of_the_round() -> None:
    positions = dict.fromkeys(range(1, 6), 0.0)
    reports = {
        1: work(trajectories=16, environment_steps=300, mean_return=1e6, mean_length=1.0, loss=5.0),
        3: work(trajectories=16, environment_steps=320, mean_return=20.0, mean_length=20.0, loss=-0.1),
        4: work(trajectories=99, environment_steps=10**12, mean_return=30.0, mean_length=30.0, loss=-0.3),
    }
    record = record_of(aggregate((1, 3, 4), (3, 4), positions), reports)
    assert (record.training_return, record.training_length) == (25.0, 25.0), "of the agents not known to be Byzantine"
    assert record.loss == pytest.approx(-0.2)
    assert record.trajectories_total == 117
    horizon = FEDERATION.task.horizon
    assert record.sampled_trajectories == {"agents": 48, "inner": 8, "aborted": 4, "evaluation": 2}
    assert record.environment_steps == {"agents": 620 + 16 * horizon, "inner": 160, "aborted": 70, "evaluation": 40}
    assert (record.filtered, record.absent) == ((1,), (2, 5))
    assert (record.evaluation_return, record.evaluation_length) == (20.0, 20.0)
    assert record.parameters_digest == digest(np.arange(3, dtype=np.float32))
    assert record_of(aggregate((1,), (1,), positions), {1: reports[1]}).training_return is None


def test_records_survive_json_and_become_finite_scalars() -> None:
    record = make_round_record(2)
    assert RoundRecord.from_json(record.to_json()) == record
    shown = dict(scalars(record))
    assert all(math.isfinite(value) for value in shown.values())
    assert shown["evaluation/return"] == 25.0
    assert (shown["filter/accepted"], shown["filter/filtered"], shown["filter/absent"]) == (3, 1, 1)
    assert shown["filter/decided_by_rule"] == 1
    assert shown["filter/distance_good"] == 0.02
    assert shown["sampled/environment_steps"] == 1760
    bare = make_round_record(
        1, training_return=None, training_length=None, loss=None, importance_ratios=(), inner_gradient_norms=(),
        distances={}, detection={}, rule="none",
    )  # fmt: skip
    assert "training/return" not in dict(scalars(bare))
    assert dict(scalars(bare))["filter/decided_by_rule"] == 0
