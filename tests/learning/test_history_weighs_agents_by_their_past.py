"""The aggregator history weighs agents by what they sent in the past, as its equations say."""

from __future__ import annotations

import numpy as np
import pytest
from fedpg_common.learning.aggregators import Memory
from fedpg_common.learning.aggregators.history import History, relative_distances
from fedpg_common.learning.aggregators.shares import geometric_median
from hypothesis import given, settings
from hypothesis import strategies as st
from support.histories import SIZE, K, Numbers, honest, seeds, votes_of, weights_of


def plain_weights(rounds: list[Numbers]) -> Numbers:
    """The weights after these rounds (all agents present, scale 1), from moving means of the votes themselves.

    That is the other form of the equations: the geometric median moves with its points, so that it does not matter
    whether means of votes are compared, or means of deviations from some centre of each round.
    """
    least = np.ones(len(rounds[0]))
    for horizon in (1, 3, 9, 39, 199):
        beta = (horizon - 1) / (horizon + 1)
        means = np.zeros_like(rounds[0])
        for rows in rounds:
            means = beta * means + (1 - beta) * rows.astype(np.float32)
        middle = means.mean(axis=0)
        for _ in range(500):
            pulls = 1 / np.maximum(np.linalg.norm(means - middle, axis=1), 1e-12)
            middle = pulls @ means / pulls.sum()
        noise = np.sqrt((1 - beta) / (1 + beta) * (1 - beta ** (2 * len(rounds))))
        q = np.linalg.norm(means - middle, axis=1) / noise
        psi = [1.0 if each <= 1.25 else 0.0 if each >= 3 else (1.25 / each) ** 3 for each in q]
        least = np.minimum(least, psi)
    return least


@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(1, 6), st.floats(0, 3))
def test_weights_are_those_of_plain_code(seed: int, count: int, distance: float) -> None:
    rng = np.random.default_rng(seed)
    rounds: list[Numbers] = []
    memory: Memory = {}
    result = None
    for _ in range(count):
        rows = honest(rng) + 0.3 * rng.standard_normal(SIZE)
        rows[:2, 0] += distance
        rounds.append(rows)
        result = History().aggregate(votes_of(rows), memory)
        memory = result.memory
    assert result is not None
    assert result.vector is not None
    weights = plain_weights(rounds)
    # Near the cut, where a weight jumps from 0.07 to 0, rounding may decide.
    np.testing.assert_allclose(weights_of(result), weights, atol=0.075)
    assert np.abs(weights_of(result) - weights).mean() < 0.01
    own = weights_of(result)
    np.testing.assert_allclose(result.vector, own @ rounds[-1] / own.sum(), atol=1e-5)


@given(st.floats(0, 1e6), st.floats(0.1, 5), st.floats(0.5, 5))
def test_no_agent_pulls_by_more_than_the_knee(q: float, knee: float, power: float) -> None:
    """Displacement times weight: only where the power is 1 or more does going farther not pay."""
    rule = History(knee=knee, power=max(power, 1.0), cut=knee + 2)
    weight = float(rule.weight(np.array([q]))[0])
    assert 0 <= weight <= 1
    assert q * weight <= knee * (1 + 1e-9)
    assert (q > knee) or weight == 1


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(1e-3, 1e3))
def test_weights_depend_neither_on_order_nor_on_units(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    rows = honest(rng)
    rows[:3, 0] += 1.6
    order = rng.permutation(K)
    weights = weights_of(History().aggregate(votes_of(rows), {}))
    np.testing.assert_allclose(weights_of(History().aggregate(votes_of(rows[order]), {})), weights[order], atol=1e-6)
    scaled = History().aggregate(votes_of(rows * factor, scale=factor), {})
    np.testing.assert_allclose(weights_of(scaled), weights, atol=1e-4)


def test_identical_votes_count_in_full() -> None:
    result = History().aggregate(votes_of(np.ones((K, SIZE))), {})
    assert weights_of(result).tolist() == [1.0] * K
    np.testing.assert_allclose(np.asarray(result.vector), 1.0)


@pytest.mark.parametrize("size", [1e3, 1e15, 1e30, 3e38])
def test_huge_votes_count_for_nothing_and_hide_nobody(size: float) -> None:
    rng = np.random.default_rng(0)
    memory: Memory = {}
    for _ in range(3):
        rows = honest(rng)
        rows[:4] = size
        result = History().aggregate(votes_of(rows), memory)
        memory = result.memory
        assert weights_of(result)[:4].tolist() == [0.0] * 4
        assert weights_of(result)[4:].min() > 0.5
        assert np.abs(np.asarray(result.vector)).max() < 1
    assert all(np.isfinite(vector).all() for vector in memory.values())


@given(seeds, st.integers(1, 9), st.floats(0, 50))
def test_the_geometric_median_is_robust_and_no_worse_than_any_row(seed: int, count: int, far: float) -> None:
    rows = np.random.default_rng(seed).standard_normal((count, 5))
    rows[: (count - 1) // 2] += far
    shares, distances = geometric_median(rows)
    assert shares.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(distances, np.linalg.norm(rows - shares @ rows, axis=1), atol=1e-6)
    least = min(float(np.linalg.norm(rows - row, axis=1).sum()) for row in rows)
    assert distances.sum() <= least * 1.01 + 1e-6


@given(seeds, st.integers(3, 12), st.floats(-30, 30), st.sampled_from(["together", "apart", "at one"]))
def test_no_minority_moves_the_geometric_median_beyond_its_bound(seed: int, count: int, far: float, how: str) -> None:
    """Within 2(1 − α)/(1 − 2α) times the honest rows' mean distance to their mean."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, 6))
    faulty = (count - 1) // 2
    if how == "together":
        rows[:faulty] += far
    elif how == "apart":
        rows[:faulty] *= far
    else:
        rows[:faulty] = rows[faulty]
    shares, _ = geometric_median(rows)
    good = rows[faulty:]
    reach = np.linalg.norm(good - good.mean(axis=0), axis=1).mean()
    alpha = faulty / count
    away = np.linalg.norm(shares @ rows - good.mean(axis=0))
    assert away <= 2 * (1 - alpha) / (1 - 2 * alpha) * reach * 1.01


@pytest.mark.parametrize("is_lopsided", [False, True])
@pytest.mark.parametrize("rounds", [1, 10, 200])
def test_honest_deviations_are_about_one_whatever_the_horizon_and_the_round(rounds: int, is_lopsided: bool) -> None:
    """A zero-mean walk grows as √t, and is measured in √t."""
    rng = np.random.default_rng(rounds)
    memory: Memory = {}
    for _ in range(rounds):
        memory = History().aggregate(votes_of(honest(rng, 30, is_lopsided)), memory).memory
    counts = np.full(30, float(rounds))
    for horizon in (3, 9, 39, 199):
        rows = memory[f"mean-{horizon}"].astype(np.float64).reshape(30, SIZE)
        q = relative_distances(rows, counts, horizon)
        assert 0.7 < np.sqrt(np.square(q).mean()) < 1.35, "30 agents, of which a few make up the sum"


@pytest.mark.parametrize("is_lopsided", [False, True])
@pytest.mark.parametrize(("distance", "by"), [(2.0, 2), (1.0, 6), (0.7, 12), (0.5, 23), (0.3, 66)])
def test_a_persistent_bias_is_found_after_six_over_its_square_rounds(
    distance: float, by: int, is_lopsided: bool
) -> None:
    """It grows as t, so that it stands out of √t at last. Then it is forgiven, if it ends."""
    rng = np.random.default_rng(0)
    memory: Memory = {}
    found, honest_weights = 0, []
    for number in range(1, by + 3):
        rows = honest(rng, is_lopsided=is_lopsided)
        rows[:3] = 0
        rows[:3, 0] = distance
        result = History().aggregate(votes_of(rows), memory)
        memory = result.memory
        honest_weights.append(weights_of(result)[3:].mean())
        if not found and weights_of(result)[:3].max() < 0.25:
            found = number
    assert 0 < found <= by + 2
    assert np.mean(honest_weights) > 0.7


def test_who_behaves_again_is_heard_again() -> None:
    rng = np.random.default_rng(0)
    memory: Memory = {}
    heard = []
    for number in range(1, 260):
        rows = honest(rng)
        if number <= 60:
            rows[0, 0] += 1.0
        result = History().aggregate(votes_of(rows), memory)
        memory = result.memory
        heard.append(weights_of(result)[0] > 0.25)
    assert not any(heard[20:60])
    assert all(heard[-10:]), "180 rounds later at the latest"
