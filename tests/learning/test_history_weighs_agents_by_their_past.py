"""The aggregator history does what its equations say, and forgets nothing that it must keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import Aggregate, Memory, RoundPlan, Votes, build_aggregator
from fedpg_common.learning.aggregators.history import History, beta_of, relative_distances
from fedpg_common.learning.aggregators.scale import scale_of
from fedpg_common.learning.aggregators.shares import geometric_median
from fedpg_common.learning.aggregators.sketch import Sketch
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.state import AGGREGATOR, State, digest_of, from_bytes, to_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
seeds = st.integers(0, 2**32 - 1)
K, SIZE = 10, 400


def votes_of(rows: Numbers, scale: float | None = 1.0, agents: tuple[int, ...] = (), size: int = 0) -> Votes:
    """These rows as votes, of all agents unless they are named."""
    matrix = rows.astype(np.float32)
    matrix.flags.writeable = False
    names = agents or tuple(range(1, len(rows) + 1))
    task = dataclasses.replace(CARTPOLE, alpha=0.4)
    return Votes(names, matrix, size or max(names), RoundPlan(1, 16, 3), task, server_scale=scale)


def honest(rng: np.random.Generator, count: int = K, is_lopsided: bool = False) -> Numbers:
    """Votes of noise 1; lopsided: seven tenths of its variance lie in one direction, as policy gradients have it."""
    rows: Numbers = rng.standard_normal((count, SIZE)) / np.sqrt(SIZE)
    if is_lopsided:
        rows *= np.sqrt(0.3)
        rows[:, 1] += np.sqrt(0.7) * rng.standard_normal(count)
    return rows


def weights_of(result: Aggregate) -> Numbers:
    """The voters' weights, in order."""
    assert result.weights is not None
    return np.array(list(result.weights.values()))


# Formulas -------------------------------------------------------------------------------------------------------------


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


# What can be promised -------------------------------------------------------------------------------------------------


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


# Absent agents and newcomers ------------------------------------------------------------------------------------------


def test_the_history_of_an_absent_agent_stays_as_it_is() -> None:
    rng = np.random.default_rng(1)
    memory: Memory = {}
    for _ in range(12):
        rows = honest(rng)
        rows[0, 0] += 1.0
        memory = History().aggregate(votes_of(rows), memory).memory
    before = memory["mean-39"].reshape(K, -1)[0].copy()
    for _ in range(30):
        result = History().aggregate(votes_of(honest(rng, K - 1), agents=tuple(range(2, K + 1)), size=K), memory)
        memory = result.memory
        assert set(result.weights or {}) == set(range(2, K + 1))
    assert memory["mean-39"].reshape(K, -1)[0].tobytes() == before.tobytes()
    assert memory["rounds"].tolist() == [12.0] + [42.0] * (K - 1)
    back = History().aggregate(votes_of(honest(rng)), memory)
    assert weights_of(back)[0] < 0.25, "absence launders nothing"


def test_honest_newcomers_are_heard_while_the_gradient_drifts() -> None:
    """They are compared by deviations from the rounds that they took part in, not by means over other rounds."""
    rng = np.random.default_rng(2)
    memory: Memory = {}
    for number in range(1, 100):
        away = np.zeros(SIZE)
        away[0] = 5.0 * np.cos(number / 20)
        present = tuple(range(1, K + 1)) if number > 80 else tuple(range(1, 7))
        result = History().aggregate(votes_of(honest(rng, len(present)) + away, agents=present, size=K), memory)
        memory = result.memory
        if number > 80:
            assert (weights_of(result) > 0.25).all()


def test_an_old_agent_is_not_blamed_for_the_newcomers_noise() -> None:
    rng = np.random.default_rng(3)
    memory: Memory = {}
    for _ in range(150):
        memory = History().aggregate(votes_of(honest(rng, 1), agents=(1,), size=K), memory).memory
    first = [weights_of(History().aggregate(votes_of(honest(rng)), memory))[0] for _ in range(20)]
    assert np.mean(first) > 0.8


# Memory ---------------------------------------------------------------------------------------------------------------


def stored(memory: Memory) -> dict[str, Any]:
    """A memory as bytes and back."""
    return {name: from_bytes(to_bytes(vector)) for name, vector in memory.items()}


@pytest.mark.parametrize("sketch", [None, 64])
def test_a_restart_changes_no_bit(sketch: int | None) -> None:
    rng = np.random.default_rng(4)
    lasting, memory = History(sketch=sketch), dict[str, Any]()
    for number in range(1, 9):
        agents = tuple(agent for agent in range(1, K + 1) if agent != number)
        votes = votes_of(honest(rng, len(agents)), agents=agents, size=K)
        stayed = lasting.aggregate(votes, memory)
        restarted = History(sketch=sketch).aggregate(votes, stored(memory))
        assert np.asarray(stayed.vector).tobytes() == np.asarray(restarted.vector).tobytes()
        assert digest_of(state(stayed.memory)) == digest_of(state(restarted.memory))
        assert all(vector.dtype == np.float32 for vector in stayed.memory.values())
        memory = dict(stayed.memory)


def state(memory: Mapping[str, Any]) -> State:
    """A state with this memory."""
    return State().with_memory(AGGREGATOR, memory)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_sketches_keep_lengths_and_are_linear(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sketch = Sketch([seed], 2_000, 500)
    rows = rng.standard_normal((40, 2_000)) * rng.choice([0.1, 1.0, 10.0], 2_000)
    ratios = np.square(sketch(rows)).sum(axis=1) / np.square(rows).sum(axis=1)
    # 40 samples whose standard deviation is at most √(2/500) = 0.063
    assert abs(ratios.mean() - 1) < 0.09
    assert np.abs(ratios - 1).max() < 0.45
    np.testing.assert_allclose(sketch(rows[:1] + rows[1:2]), sketch(rows[:1]) + sketch(rows[1:2]), atol=1e-9)
    assert Sketch([seed], 2_000, 5_000)(rows) is rows


def test_with_sketches_it_decides_nearly_the_same_with_a_fraction_of_the_memory() -> None:
    rng = np.random.default_rng(5)
    exact: Memory = {}
    short: Memory = {}
    for _ in range(40):
        rows = rng.standard_normal((20, 3_000)) / np.sqrt(3_000)
        rows[:6, :7] += 0.35
        one = History(sketch=3_000).aggregate(votes_of(rows), exact)
        other = History(sketch=500).aggregate(votes_of(rows), short)
        exact, short = one.memory, other.memory
        # q is off by some 3 %, a falling weight by three times as much; a jump at the cut is 0.07.
        np.testing.assert_allclose(weights_of(other), weights_of(one), atol=0.2)
    assert np.abs(weights_of(one) - weights_of(other)).mean() < 0.03
    assert sum(map(len, short.values())) < sum(map(len, exact.values())) / 5
    assert (weights_of(other)[:6] < 0.25).all()


def test_the_sketch_is_drawn_from_votes_that_nobody_knows_beforehand() -> None:
    rng = np.random.default_rng(6)
    rows = honest(rng)
    first = History(sketch=64).aggregate(votes_of(rows), {}).memory
    again = History(sketch=64).aggregate(votes_of(rows[::-1]), {}).memory
    other = History(sketch=64).aggregate(votes_of(honest(rng)), {}).memory
    assert first["sketch"].tolist() == again["sketch"].tolist() != other["sketch"].tolist()
    assert History(sketch=64).aggregate(votes_of(rows), first).memory["sketch"].tolist() == first["sketch"].tolist()


# Scale and settings ---------------------------------------------------------------------------------------------------


def test_the_scale_is_the_servers_or_one_that_a_minority_cannot_choose() -> None:
    rng = np.random.default_rng(7)
    rows = honest(rng)
    assert scale_of(votes_of(rows, scale=3.0)) == 3.0
    assert 0.8 < scale_of(votes_of(rows, scale=None)) < 1.2
    for size in (0.0, 1e30):
        rows[:3] = size
        assert 0.5 < scale_of(votes_of(rows, scale=None)) < 1.5
    assert scale_of(votes_of(np.zeros((3, 4)), scale=None)) > 0
    assert scale_of(votes_of(np.full((1, 4), 2.0), scale=None)) == 4.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"horizons": [3, 9]}, "ascend from 1"),
        ({"horizons": [1, 9, 3]}, "ascend"),
        ({"horizons": "many"}, "list"),
        ({"horizons": [1, float("inf")]}, "rounds"),
        ({"knee": 0}, "knee must be a positive number"),
        ({"power": "steep"}, "power"),
        ({"cut": 1.0}, "cut must be larger than knee, which is 1.25, not 1.0"),
        ({"sketch": 3}, "sketch"),
        ({"sigma": 0.06}, "its settings are horizons"),
    ],
)
def test_wrong_settings_are_refused_with_one_sentence(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match="aggregator history: ") as error:
        build_aggregator(Choice("history", wrong))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_betas_are_those_of_their_horizons() -> None:
    assert [beta_of(horizon) for horizon in (1, 3, 9, 39, 199)] == pytest.approx([0, 0.5, 0.8, 0.95, 0.99])


@pytest.mark.parametrize("is_lopsided", [False, True])
@pytest.mark.parametrize("attackers", ["none", "far away", "in the middle"])
def test_the_scale_is_about_right_without_the_servers_help(is_lopsided: bool, attackers: str) -> None:
    """Whatever four of ten do about it. A single round's votes are a third too small where noise is lopsided."""
    rng = np.random.default_rng(1)
    memory: Memory = {}
    scales, heard = [], []
    for _ in range(40):
        rows = honest(rng, is_lopsided=is_lopsided)
        if attackers != "none":
            rows[:4] = rows[4:].mean(axis=0)
        if attackers == "far away":
            rows[:4, 0] += 2.0
        result = History().aggregate(votes_of(rows, scale=None), memory)
        memory = result.memory
        scales.append(result.figures["scale"])
        heard.append(weights_of(result)[4:].mean())
    assert 0.7 < np.mean(scales[9:]) < 1.25
    assert np.mean(heard) > 0.6


@given(seeds)
def test_votes_of_smaller_batches_may_scatter_more(seed: int) -> None:
    """The scale remembers noise per trajectory: four times the batch is half of the scale."""
    rng = np.random.default_rng(seed)
    small, large = honest(rng), 0.5 * honest(rng)
    first = votes_of(small, scale=None)
    memory = History().aggregate(first, {}).memory
    second = dataclasses.replace(votes_of(large, scale=None), plan=RoundPlan(2, 64, 3))
    result = History().aggregate(second, memory)
    assert result.figures["scale"] == pytest.approx(0.5, rel=0.25)
