"""Records hold the right figures: distances among good and Byzantine agents and between, precision, recall, F1."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.descriptions import describe
from fedpg_common.learning.aggregators import Aggregate, RoundPlan, Votes
from fedpg_common.learning.parameters import digest
from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.algorithms.base import InnerReport, Sampled
from fedpg_server.learning.learner import RoundResult
from fedpg_server.learning.make_record import make_record
from fedpg_server.learning.records import Evaluation, RoundRecord
from fedpg_server.learning.totals import Totals
from fedpg_server.observers.telemetry import scalars, totals
from support.protocol import make_round_record

FEDERATION = describe("CartPole-v1", agents=5, byzantine=2)
"""Agents 1 and 2 are Byzantine."""


def result_of(
    agents: tuple[int, ...], accepted: tuple[int, ...], positions: dict[int, float] | None = None
) -> RoundResult:
    """A round with agents on a line: their distances are easy to see."""
    places = positions or dict.fromkeys(range(1, 6), 0.0)
    matrix = np.array([places[agent] for agent in agents], np.float32).reshape(-1, 1)
    votes = Votes(agents, matrix, FEDERATION.agents, RoundPlan(7, 16, 3), FEDERATION.task)
    median = accepted[0] if accepted else None
    aggregate = Aggregate(
        np.zeros(1, np.float32) if accepted else None, "R1" if accepted else "none", dict.fromkeys(accepted, 1.0),
        {"radius": 1.0}, median_agent=median,
    )  # fmt: skip
    centre = {} if median is None else {agent: abs(places[agent] - places[median]) for agent in agents}
    inner = InnerReport(steps_taken=2, aborted=True, sampled=Sampled(8, 160), dropped=Sampled(4, 70))
    return RoundResult(
        fresh(np.arange(3, dtype=np.float32)), votes, aggregate, centre, gradient_norm=0.5, inner=inner,
        trajectories=17, learning_rate=1e-3, evaluation=Evaluation((10.0, 30.0), (10, 30)),
    )  # fmt: skip


def record_of(result: RoundResult, reports: dict[int, bytes], before: int = 100) -> RoundRecord:
    return make_record(result, RoundPlan(7, 16, 3), FEDERATION, reports, before, seconds=1.5)


def work(**fields: float) -> bytes:
    return pb.WorkReport(**fields).SerializeToString()  # type: ignore[arg-type]


def test_distances_are_means_over_pairs_by_kind() -> None:
    positions = {1: 10.0, 2: 14.0, 3: 0.0, 4: 1.0, 5: 3.0}
    record = record_of(result_of((1, 2, 3, 4, 5), (4, 3, 5), positions), {})
    assert record.distances == pytest.approx(
        {"good": (1 + 3 + 2) / 3, "byzantine": 4.0, "between": (10 + 9 + 7 + 14 + 13 + 11) / 6}
    )
    assert record.centre_distances == pytest.approx({1: 9.0, 2: 13.0, 3: 1.0, 4: 0.0, 5: 2.0})


def test_kinds_without_a_pair_are_missing() -> None:
    positions = {1: 10.0, 3: 0.0, 4: 1.0}
    assert set(record_of(result_of((1, 3, 4), (3, 4), positions), {}).distances) == {"good", "between"}
    assert set(record_of(result_of((3,), (3,), positions), {}).distances) == set()
    empty = record_of(result_of((), (), positions), {})
    assert (empty.distances, empty.centre_distances, empty.absent) == ({}, {}, (1, 2, 3, 4, 5))


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
    assert record_of(result_of(agents, accepted), {}).detection == pytest.approx(scores)


def test_figures_of_the_round() -> None:
    reports = {
        1: work(trajectories=16, environment_steps=300, mean_return=1e6, mean_length=1.0, loss=5.0),
        3: work(trajectories=16, environment_steps=320, mean_return=20.0, mean_length=20.0, loss=-0.1),
        4: work(trajectories=99, environment_steps=10**12, mean_return=30.0, mean_length=30.0, loss=-0.3),
    }
    record = record_of(result_of((1, 3, 4), (3, 4)), reports)
    assert (record.training_return, record.training_length) == (25.0, 25.0), "of the agents not known to be Byzantine"
    assert record.loss == pytest.approx(-0.2)
    assert record.trajectories_total == 117
    horizon = FEDERATION.task.horizon
    assert record.sampled_trajectories == {"agents": 48, "inner": 8, "aborted": 4, "evaluation": 2}
    assert record.environment_steps == {"agents": 620 + 16 * horizon, "inner": 160, "aborted": 70, "evaluation": 40}
    assert (record.filtered, record.absent) == ((1,), (2, 5))
    assert (record.evaluation_return, record.evaluation_length) == (20.0, 20.0)
    assert record.parameters_digest == digest(np.arange(3, dtype=np.float32))
    assert record_of(result_of((1,), (1,)), {1: reports[1]}).training_return is None


def test_records_survive_json_and_become_finite_scalars() -> None:
    record = make_round_record(2)
    assert RoundRecord.from_json(record.to_json()) == record
    shown = dict(scalars(record))
    assert all(math.isfinite(value) for value in shown.values())
    assert shown["evaluation/return"] == 25.0
    assert (shown["filter/accepted"], shown["filter/filtered"], shown["filter/absent"]) == (3, 1, 1)
    assert shown["filter/radius"] == 0.05
    assert "decided_by/R1" in dict(totals(Totals([record])))
    assert shown["filter/distance_good"] == 0.02
    assert shown["sampled/environment_steps"] == 1760
    bare = make_round_record(
        1, training_return=None, training_length=None, loss=None, importance_ratios=(), inner_gradient_norms=(),
        distances={}, detection={}, rule="none",
    )  # fmt: skip
    assert "training/return" not in dict(scalars(bare))
    assert dict(totals(Totals([record, bare])))["decided_by/none"] == 0.5


def test_a_rule_that_selects_nobody_in_particular_is_not_scored() -> None:
    result = result_of((1, 3, 4), ())
    vague = replace(result, aggregate=Aggregate(np.zeros(1, np.float32), "median", figures={"spread": 0.25}))
    record = record_of(vague, {})
    assert (record.accepted, record.filtered, record.detection, record.weights) == ((1, 3, 4), (), {}, None)
    assert record.figures == {"spread": 0.25}
    assert RoundRecord.from_json(record.to_json()) == record
    nothing = record_of(replace(result, aggregate=Aggregate(None, "median")), {})
    assert (nothing.accepted, nothing.has_mu) == ((), False)


def test_weights_between_nothing_and_all_are_kept() -> None:
    result = result_of((1, 3, 4), ())
    soft = Aggregate(np.zeros(1, np.float32), "soft", {1: 0.0, 3: 0.25, 4: 1.0})
    record = record_of(replace(result, aggregate=soft), {})
    assert (record.accepted, record.filtered, record.weights) == ((3, 4), (1,), {1: 0.0, 3: 0.25, 4: 1.0})
    assert record.detection == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert RoundRecord.from_json(record.to_json()) == record
