"""The picture of a round's gradients: what it keeps of their distances, and what it says of who is where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe
from fedpg_common.learning.aggregators.distances import pairwise_distances
from fedpg_lab.watch.plane import plane_of
from fedpg_server.learning.pairwise import VOTERS_MAX, pack, unpack
from fedpg_server.learning.records import RoundRecord
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.watch import ask, ask_json, page_of, watched_federation, watched_round, watched_run

Vectors = NDArray[np.float32]


def points(voters: int, dimensions: int, seed: int = 0) -> Vectors:
    """Gradients."""
    return np.random.default_rng(seed).normal(size=(voters, dimensions)).astype(np.float32)


def round_with(matrix: Vectors, **changes: Any) -> RoundRecord:
    """A round with these gradients, of which the last is the median."""
    voters = range(1, len(matrix) + 1)
    distances = pairwise_distances(matrix)
    values: dict[str, Any] = {
        "accepted": tuple(voters), "filtered": (), "absent": (), "median_agent": len(matrix),
        "centre_distances": dict(zip(voters, distances[-1].tolist(), strict=True)),
        "weights": dict.fromkeys(voters, 1.0),
        "pairwise_distances": pack(distances),
    }  # fmt: skip
    return watched_round(1, **{**values, **changes})


@given(st.integers(1, VOTERS_MAX), st.integers(0, 99))
def test_packed_distances_come_back(voters: int, seed: int) -> None:
    distances = pairwise_distances(points(voters, 7, seed))
    text = pack(distances)
    assert text is not None
    assert np.array_equal(unpack(text, voters), distances.astype(np.float32).astype(np.float64))
    with pytest.raises(ValueError, match="distances between"):
        unpack(text, voters + 1)


def test_distances_of_many_voters_are_not_kept() -> None:
    assert pack(np.zeros((VOTERS_MAX, VOTERS_MAX))) is not None
    assert pack(np.zeros((VOTERS_MAX + 1, VOTERS_MAX + 1))) is None


def test_distances_beyond_float32_stay_numbers() -> None:
    text = pack(np.array([[0.0, 1e300], [1e300, 0.0]]))
    assert text is not None
    assert np.isfinite(unpack(text, 2)).all()


@given(st.integers(2, 20), st.integers(2, 50), st.integers(0, 99))
def test_distances_from_the_centre_are_exact(voters: int, dimensions: int, seed: int) -> None:
    matrix = points(voters, dimensions, seed)
    plane = plane_of(watched_federation(), round_with(matrix))
    assert plane is not None
    true = np.linalg.norm(matrix.astype(np.float64) - matrix[-1], axis=1)
    assert np.hypot(*np.array(plane["radial"]).T) == pytest.approx(true, rel=2e-3, abs=1e-6)
    assert np.array(plane["distance"]) == pytest.approx(true, rel=1e-3, abs=1e-6)


@given(st.integers(3, 20), st.integers(0, 99))
def test_what_lies_in_a_plane_is_shown_as_it_is(voters: int, seed: int) -> None:
    flat = points(voters, 2, seed)
    plane = plane_of(watched_federation(), round_with(flat))
    assert plane is not None
    shown = pairwise_distances(np.array(plane["classical"], np.float32))
    assert shown == pytest.approx(pairwise_distances(flat), rel=5e-3, abs=5e-3)
    assert plane["shown"] == pytest.approx(1.0, abs=1e-3)


def test_without_a_median_the_weighted_mean_is_the_centre() -> None:
    matrix = points(6, 2)
    weights = {1: 1.0, 2: 1.0, 3: 1.0, 4: 0.0, 5: 0.0, 6: 0.0}
    mean = matrix[:3].mean(axis=0)
    to_mean = np.linalg.norm(matrix - mean, axis=1)
    changes = {"median_agent": None, "weights": weights, "centre_distances": dict(enumerate(to_mean.tolist(), 1))}
    plane = plane_of(watched_federation(), round_with(matrix, **changes))
    assert plane is not None
    assert plane["centre"] is None
    assert np.hypot(*np.array(plane["classical"]).T) == pytest.approx(to_mean, rel=5e-3)


def test_who_sends_the_same_is_named() -> None:
    matrix = points(7, 30)
    matrix[1] = matrix[3] = matrix[0]
    plane = plane_of(watched_federation(), round_with(matrix))
    assert plane is not None
    assert plane["alike"] == [[1, 2, 4]]


def test_both_radii_of_the_published_rule_are_drawn() -> None:
    plane = plane_of(watched_federation(), round_with(points(5, 9), figures={"radius": 0.0825}, rule="R1"))
    assert plane is not None
    assert [(circle["name"], circle["decided"]) for circle in plane["circles"]] == [("R1", True), ("R2", False)]
    assert plane["circles"][1]["radius"] == pytest.approx(0.12)  # 2σ


def test_another_rule_has_its_own_radius_or_none() -> None:
    described = describe("CartPole-v1", agents=5, trajectories=100)
    for figures, names in (({"radius": 0.5}, ["mine"]), ({}, []), ({"radius": float("nan")}, [])):
        federation = type(described)(described.task, agents=5, aggregator=Choice("median"))
        plane = plane_of(federation, round_with(points(5, 9), figures=figures, rule="mine"))
        assert plane is not None
        assert [circle["name"] for circle in plane["circles"]] == names


def test_a_round_is_shown_by_its_number(tmp_path: Path) -> None:
    watched_run(tmp_path / "runs" / "one")
    with page_of(tmp_path / "runs") as server:
        assert ask_json(server, "/plane?run=one&round=3") is None  # as in a run from before distances were kept
        assert ask(server, "/plane?run=one&round=x", Accept="application/json")[0] == 400
        assert ask(server, "/plane?run=none&round=1", Accept="application/json")[0] == 404
