"""The shipped aggregators and pre-aggregators are what their papers say, and work on each other's results."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import Aggregate, Mixed, RoundPlan, Votes, build_aggregator
from fedpg_common.learning.aggregators.nnm import NearestNeighbourMixing
from fedpg_common.shipped import AGGREGATORS, PRE_AGGREGATORS
from fedpg_common.tasks import CARTPOLE
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

seeds = st.integers(0, 2**32 - 1)


def votes_of(matrix: NDArray[Any], K: int | None = None, alpha: float = 0.4, agents: tuple[int, ...] = ()) -> Votes:
    """These rows as votes of agents 1, 2, …"""
    rows = matrix.astype(np.float32)
    rows.flags.writeable = False
    names = agents or tuple(range(1, len(rows) + 1))
    task = dataclasses.replace(CARTPOLE, alpha=alpha)
    own = np.median(rows, axis=0).astype(np.float32)
    return Votes(names, rows, K or len(rows), RoundPlan(1, 16, 3), task, server_gradient=own)


def aggregated(votes: Votes, name: str, **settings: Any) -> Aggregate:
    """What an aggregator of the table makes of votes."""
    return build_aggregator(Choice(name, settings)).aggregate(votes, {})


def vector_of(result: Aggregate) -> list[float]:
    """μ, which there must be."""
    assert result.vector is not None
    assert result.vector.dtype == np.float32
    vector: list[float] = result.vector.tolist()
    return vector


def draw(seed: int, count: int = 9, size: int = 7) -> NDArray[np.float32]:
    """Votes about a common vector, some of them far away."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, size)) * rng.choice([0.1, 0.1, 5.0], (count, 1)) + 1
    return np.asarray(rows, np.float32)


# One at a time --------------------------------------------------------------------------------------------------------


def test_median_and_trimmed_mean_by_hand() -> None:
    votes = votes_of(np.array([[1, 9], [2, 8], [4, 100], [8, -100], [300, 0]]))
    median = aggregated(votes, "median")
    assert (vector_of(median), median.rule, median.weights) == ([4, 8], "median", None)
    assert vector_of(aggregated(votes_of(votes.matrix[:4]), "median")) == [3, 8.5]
    assert vector_of(aggregated(votes, "trimmed-mean", faulty=1)) == pytest.approx([14 / 3, 17 / 3])
    assert vector_of(aggregated(votes, "trimmed-mean")) == [4, 8], "⌊0.4 · 5⌋ = 2 are trimmed at either end"
    assert vector_of(aggregated(votes, "trimmed-mean", faulty=0)) == [63, pytest.approx(3.4)]
    assert vector_of(aggregated(votes, "trimmed-mean", faulty=99)) == [4, 8], "the middle is left"


def test_krum_by_hand() -> None:
    # Of five votes with f = 1, each is scored by its two nearest: 0 and 1 have 1 + 2² and 1 + 1², 2 has 1 + 2².
    votes = votes_of(np.array([[0], [1], [2], [50], [-70]]))
    krum = aggregated(votes, "krum", faulty=1)
    assert (vector_of(krum), krum.rule, krum.median_agent) == ([1], "krum", 2)
    assert krum.weights == {2: 1.0}
    assert krum.figures == {"score": 2.0}
    many = aggregated(votes, "multi-krum", faulty=2, selected=3)
    assert (vector_of(many), many.weights) == ([1], dict.fromkeys((1, 2, 3), 1.0))
    assert aggregated(votes, "multi-krum", faulty=1).weights == dict.fromkeys((1, 2, 3, 4), 1.0), "k − f of them"


def test_ties_go_to_the_lowest_agent() -> None:
    votes = votes_of(np.array([[0], [2], [0], [2]]), agents=(3, 5, 8, 9), K=9)
    assert aggregated(votes, "krum", faulty=1).weights == {3: 1.0}


@given(seeds, st.integers(1, 12), st.integers(0, 5))
def test_krum_is_that_of_plain_code(seed: int, count: int, faulty: int) -> None:
    votes = votes_of(draw(seed, count))
    rows = votes.matrix.astype(np.float64)
    scores = []
    for row in range(count):
        others = sorted(float(np.square(rows[row] - rows[other]).sum()) for other in range(count) if other != row)
        scores.append(sum(others[: max(1, count - faulty - 2)]))
    chosen = aggregated(votes, "krum", faulty=faulty).weights
    assert chosen is not None
    ((agent, weight),) = chosen.items()
    assert weight == 1.0
    assert scores[agent - 1] == pytest.approx(min(scores), rel=1e-6)


@given(seeds, st.integers(1, 12), st.integers(0, 12))
def test_mixing_is_that_of_plain_code(seed: int, count: int, faulty: int) -> None:
    votes = votes_of(draw(seed, count))
    mixed = NearestNeighbourMixing(faulty).mix(votes)
    rows = votes.matrix.astype(np.float64)
    kept = max(1, count - faulty)
    for row in range(count):
        nearest = sorted(range(count), key=lambda other: (np.square(rows[row] - rows[other]).sum(), other))[:kept]
        np.testing.assert_allclose(mixed.matrix[row], rows[nearest].mean(axis=0), rtol=1e-5, atol=1e-6)
        assert sorted(np.flatnonzero(mixed.shares[row])) == sorted(nearest)
    np.testing.assert_allclose(mixed.shares.sum(axis=1), 1.0)
    np.testing.assert_allclose(mixed.shares @ rows, mixed.matrix, rtol=1e-5, atol=1e-6)


def test_identical_votes_are_their_own_neighbours() -> None:
    mixed = NearestNeighbourMixing(2).mix(votes_of(np.ones((5, 3))))
    assert mixed.matrix.tolist() == np.ones((5, 3)).tolist()
    assert (np.diag(mixed.shares) > 0).all()


# After each other -----------------------------------------------------------------------------------------------------


def test_weights_of_mixed_rows_become_weights_of_agents() -> None:
    votes = votes_of(np.array([[0], [1], [2], [50], [-70]]))
    alone = aggregated(votes, "krum", faulty=1, after=[{"name": "nnm", "faulty": 2}])
    # Row 1 is the mean of 0, 1 and 2, as rows 2 and 3 are; krum takes the first of them.
    assert (vector_of(alone), alone.rule, alone.median_agent) == ([1], "krum", None)
    assert alone.weights == {1: 1.0, 2: 1.0, 3: 1.0, 4: 0.0, 5: 0.0}
    assert aggregated(votes, "median", after=["nnm"]).weights is None


class Halves:
    """Means of neighbours in the order of agents: half as many rows. For the test."""

    def mix(self, votes: Votes) -> Mixed:
        pairs = [slice(start, start + 2) for start in range(0, len(votes.agents), 2)]
        shares = np.zeros((len(pairs), len(votes.agents)))
        for row, pair in enumerate(pairs):
            shares[row, pair] = 1 / len(votes.agents[pair])
        return Mixed((shares @ votes.matrix).astype(np.float32), shares, {"rows": float(len(pairs))})


class Seen:
    """Looks at what it is given. For the test."""

    given: Votes

    def aggregate(self, votes: Votes, memory: Mapping[str, NDArray[np.float32]]) -> Aggregate:
        Seen.given = votes
        return Aggregate(votes.matrix[0].copy(), "seen", {1: 1.0, 2: 0.5})


def test_a_smaller_number_of_rows_is_a_smaller_federation_that_tolerates_as_much() -> None:
    votes = votes_of(np.arange(14).reshape(7, 2), K=10, agents=(1, 2, 4, 5, 7, 8, 9))
    here = __name__
    result = aggregated(votes, f"{here}:Seen", after=[f"{here}:Halves"])
    seen = Seen.given
    assert (seen.agents, seen.federation_size, seen.faulty) == ((1, 2, 3, 4), 6, 4)
    assert seen.matrix.tolist() == [[1, 2], [5, 6], [9, 10], [12, 13]]
    assert not seen.matrix.flags.writeable
    assert result.weights == {1: 1.0, 2: 1.0, 4: 0.5, 5: 0.5, 7: 0.0, 8: 0.0, 9: 0.0}
    assert result.figures == {"rows": 4.0}
    aggregated(votes, f"{here}:Seen", after=[f"{here}:Halves", f"{here}:Halves"])
    assert (Seen.given.agents, Seen.given.faulty) == ((1, 2), 4)


def test_two_attackers_far_away_do_not_pass_any_shipped_filter_behind_mixing() -> None:
    rng = np.random.default_rng(4)
    rows = 0.02 + 0.001 * rng.standard_normal((7, 30))
    rows[[1, 5]] = 40.0
    for name in AGGREGATORS.shipped:
        if name != "mean":
            result = aggregated(votes_of(rows), name, after=["nnm"])
            assert np.abs(np.array(vector_of(result)) - 0.02).max() < 0.01, name


# What may not be chosen -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*AGGREGATORS.shipped])
def test_every_aggregator_of_the_table_takes_any_votes(name: str) -> None:
    for count, K in itertools.product((1, 2, 3, 10), (10, 30)):
        for rows in (draw(count, count), np.zeros((count, 4))):
            result = aggregated(votes_of(rows, K), name)
            assert result.vector is None or np.isfinite(result.vector).all()


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("krum", {"faulty": -1}, "aggregator krum: faulty must be a whole number from 0 to 10000, not -1"),
        ("krum", {"faulty": True}, "faulty must be a whole number"),
        ("krum", {"fault": 1}, "unknown setting 'fault': did you mean faulty? Its settings are faulty (default None)"),
        ("median", {"faulty": 1}, "its settings are none"),
        ("mean", {"faulty": 1}, "its settings are weighting (default 'agents')"),
        ("fedpg", {"weighting": "votes"}, "weighting must be agents or trajectories, not 'votes'"),
        ("krum", {"weighting": "trajectories"}, "it does not weigh votes by trajectories; mean and fedpg do"),
        ("mean", {"weighting": "trajectories", "after": ["nnm"]}, "leave out weighting, or after"),
        ("multi-krum", {"selected": 0}, "selected must be a whole number of at least 1, not 0"),
        ("trimmed-mean", {"faulty": 1.5}, "faulty must be a whole number"),
        ("fedpg", {"sigma": 0}, "aggregator fedpg: sigma must be a positive number, not 0"),
        ("fedpg", {"delta": 1}, "delta must be between 0 and 1, not 1"),
        ("krum", {"after": "nnm"}, "aggregator krum: after must be a list of pre-aggregators, not 'nnm'"),
        ("krum", {"after": ["nmm"]}, "unknown pre-aggregator 'nmm': did you mean nnm?"),
        ("krum", {"after": [{"name": "nnm", "faulty": "x"}]}, "pre-aggregator nnm: faulty must be a whole number"),
        ("krum", {"after": [{"faulty": 1}]}, "pre-aggregator: the table needs a name"),
        ("krum", {"after": ["math:sqrt"]}, "pre-aggregator math:sqrt"),
        ("math:sqrt", {}, "aggregator math:sqrt"),
        ("no_such_module:X", {}, "no_such_module cannot be imported"),
        (f"{__name__}:Nothing", {}, "has no class Nothing"),
        (f"{__name__}:Halves", {}, "has no method 'aggregate'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(name: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_aggregator(Choice(name, settings))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_name_in_the_tables_can_be_built() -> None:
    for choices in (AGGREGATORS, PRE_AGGREGATORS):
        for name in choices.shipped:
            assert choices.build(Choice(name))
