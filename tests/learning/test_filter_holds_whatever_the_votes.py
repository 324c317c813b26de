"""Whatever the votes, the filter treats agents alike and bounds what a minority can do; the mean takes everybody."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fedpg_common.learning.aggregators import pairwise_distances
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.decisions import LARGEST, Decision, aggregate, mean_aggregate, narrow_radius


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("huge", [LARGEST, -LARGEST, 1e38, 1e30, 1e-45])
def test_the_largest_finite_entries_do_no_harm(huge: float) -> None:
    rng = np.random.default_rng(1)
    honest = {agent: rng.uniform(-1e-3, 1e-3, 2000).astype(np.float32) for agent in range(4, 11)}
    attackers = {agent: np.full(2000, huge * (-1) ** agent, dtype=np.float32) for agent in range(1, 4)}
    with np.errstate(all="raise", under="ignore"):
        result = aggregate(honest | attackers, agents=10, sigma=0.06, batch_size=16)
        plain = mean_aggregate(honest | attackers)
    assert np.isfinite(result.distances).all()
    if abs(huge) > 1:
        assert result.accepted == tuple(honest)
    assert result.vector is not None
    assert np.abs(result.vector).max() < 1e-3
    assert plain.vector is not None
    assert np.isfinite(plain.vector).all()


@pytest.mark.filterwarnings("error")
def test_the_mean_of_the_largest_numbers_is_finite() -> None:
    updates = dict.fromkeys(range(1, 8), np.full(3, LARGEST, dtype=np.float32))
    for result in (mean_aggregate(updates), aggregate(updates, agents=7, sigma=1.0)):
        assert result.vector is not None
        assert result.vector.tolist() == [LARGEST] * 3


def draw(seed: int, count: int, size: int = 12) -> NDArray[np.float32]:
    """Vectors about 1 apart, some of them far away."""
    rng = np.random.default_rng(seed)
    spread = rng.choice([0.2, 0.2, 0.2, 3.0], size=(count, 1))
    rows: NDArray[np.float32] = (rng.standard_normal((count, size)) * spread).astype(np.float32)
    return rows


def decision(result: Decision) -> tuple[object, ...]:
    """All that a result says, to the bit."""
    vector = None if result.vector is None else result.vector.tobytes()
    return vector, result.rule, result.accepted, result.agents, result.distances.tobytes(), result.median_agent


seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 15), st.floats(0.1, 2.0), st.integers(1, 40))
def test_it_treats_all_agents_alike(seed: int, agents: int, sigma: float, batch_size: int) -> None:
    rows = draw(seed, agents)
    for radius in (narrow_radius(agents, batch_size, sigma), 2 * sigma):
        # Two are equally near to their mean, and the lowest index decides: the only tie among random vectors.
        assume(((pairwise_distances(rows) <= radius).sum(axis=1) > agents / 2).sum() != 2)
    names = np.random.default_rng(seed + 1).permutation(agents) + 1
    result = aggregate(dict(enumerate(rows, start=1)), agents, sigma, batch_size)
    renamed = aggregate(dict(zip(names.tolist(), rows, strict=True)), agents, sigma, batch_size)
    assert renamed.rule == result.rule
    assert set(renamed.accepted) == {int(names[agent - 1]) for agent in result.accepted}
    if result.vector is not None:
        assert renamed.vector is not None
        np.testing.assert_allclose(renamed.vector, result.vector, rtol=1e-5, atol=1e-7)


@given(seeds, st.integers(1, 15), st.floats(0.1, 2.0), st.integers(1, 40))
def test_the_order_of_arrival_does_not_change_a_bit(seed: int, agents: int, sigma: float, batch_size: int) -> None:
    updates = dict(enumerate(draw(seed, agents), start=1))
    shuffled = {int(k) + 1: updates[int(k) + 1] for k in np.random.default_rng(seed).permutation(agents)}
    in_order, late = (aggregate(arrivals, agents, sigma, batch_size) for arrivals in (updates, shuffled))
    assert decision(in_order) == decision(late)
    assert decision(mean_aggregate(updates)) == decision(mean_aggregate(shuffled))


@given(seeds, st.integers(1, 15), st.integers(0, 5), st.floats(0.1, 2.0), st.integers(1, 40))
def test_the_accepted_are_those_within_the_radius_of_the_median(
    seed: int, arrived: int, absent: int, sigma: float, batch_size: int
) -> None:
    rows = draw(seed, arrived)
    result = aggregate(dict(enumerate(rows, start=1)), arrived + absent, sigma, batch_size)
    if result.median_agent is None:
        assert result.vector is None
        return
    median = rows[result.median_agent - 1].tolist()
    near = tuple(agent for agent, row in enumerate(rows, start=1) if math.dist(row.tolist(), median) <= result.radius)
    assert result.accepted == near
    assert 2 * len(near) > arrived + absent


@given(seeds, st.integers(4, 9), st.integers(0, 3), st.floats(1e-3, 1e3))
def test_a_clustered_majority_is_accepted_and_who_is_far_is_not(
    seed: int, honest: int, attackers: int, sigma: float
) -> None:
    agents = honest + attackers
    radius = narrow_radius(agents, 16, sigma)
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((agents, 30))
    rows *= radius * 0.49 / np.linalg.norm(rows, axis=1, keepdims=True)
    rows[honest:] *= rng.uniform(4, 1e6, (attackers, 1))
    names = (rng.permutation(agents) + 1).tolist()
    result = aggregate(dict(zip(names, rows.astype(np.float32), strict=True)), agents, sigma, 16, alpha=0.45)
    assert set(result.accepted) == set(names[:honest])
    if honest >= agents - math.floor(0.45 * agents):
        assert result.rule == "R1"


@given(seeds, st.integers(2, 9), st.floats(0.05, 2.0), st.floats(0.0, 3.0))
def test_a_minority_cannot_pull_the_result_far_away(seed: int, honest: int, sigma: float, reach: float) -> None:
    # Whoever is in S has an honest vector within r, and whoever is accepted lies within r of a member of S.
    attackers = honest - 1
    rng = np.random.default_rng(seed)
    good = draw(seed, honest)
    direction = rng.standard_normal(12)
    direction *= reach * 2 * sigma / np.linalg.norm(direction)
    bad = good[rng.integers(honest, size=attackers)] + direction * rng.uniform(0.9, 1.1, (attackers, 1))
    rows = np.concatenate([good, bad]).astype(np.float32)
    result = aggregate(dict(enumerate(rows, start=1)), len(rows), sigma, 16)
    if result.vector is not None:
        nearest = min(math.dist(result.vector.tolist(), row.tolist()) for row in good)
        assert nearest <= 2 * result.radius * (1 + 1e-5)


@given(
    st.dictionaries(st.integers(1, 20), st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=2), min_size=1)
)
def test_the_mean_takes_everybody(rows: dict[int, list[float]]) -> None:
    result = mean_aggregate({agent: np.array(row, dtype=np.float32) for agent, row in rows.items()})
    assert result.accepted == result.agents == tuple(sorted(rows))
    assert result.rule == "mean"
    assert result.vector is not None
    exact = [math.fsum(column) / len(rows) for column in zip(*rows.values(), strict=True)]
    np.testing.assert_allclose(result.vector, np.array(exact, dtype=np.float32), rtol=1e-6, atol=1e-12)
