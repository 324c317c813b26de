"""The aggregator history keeps what it knows of the absent and of newcomers, over restarts and in sketches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from fedpg_common.learning.aggregators import Memory
from fedpg_common.learning.aggregators.history import History
from fedpg_common.learning.aggregators.sketch import Sketch
from fedpg_server.learning.state import AGGREGATOR, State, digest_of, from_bytes, to_bytes
from hypothesis import given, settings
from support.histories import SIZE, K, honest, seeds, votes_of, weights_of


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
