"""Attackers who search try many vectors at once on `history`: with the outcome of trying them one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fedpg_client.attacks.scene import Scene
from fedpg_common.choices import Choice
from fedpg_common.learning.aggregators import Aggregate, RoundPlan, Votes
from fedpg_common.learning.aggregators.history import History
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.attacks import attack_named
from support.scenes import changed, known_round, random_round, scene, vectors

HISTORY = Choice("history")
SEARCHES = [
    "normalized", "normalized-partial", "normalized-grid", "worst-down", "worst-angle", "boundary", "patient", "drift",
    "turns", "frame", "alie-optimised", "ipm-optimised",
]  # fmt: skip
seeds = st.integers(0, 2**32 - 1)


def one_by_one(seen: Scene, tried: NDArray[np.float32]) -> list[Aggregate]:
    """What the rule makes of each."""
    return [seen.aggregate(vector.astype(np.float64)) for vector in tried]


def together(seen: Scene, tried: NDArray[np.float32]) -> list[Aggregate]:
    """The same, of all at once."""
    seen.foresee([vector.astype(np.float64) for vector in tried])
    return one_by_one(seen, tried)


@given(seeds, st.integers(1, 6), st.integers(3, 9), st.sampled_from([1, 2, 20, 300]))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_weights_and_vectors_are_the_same(seed: int, attackers: int, honest: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((honest, size)) + rng.standard_normal(size)
    pooled, context = known_round(vectors(rows), vectors(rows[np.arange(attackers) % honest]), HISTORY)
    step = rng.standard_normal(size)
    near = [rows.mean(axis=0) + scale * step for scale in (-8.0, -1.0, -0.1, 0.0, 0.3, 2.0, 30.0, 1e3)]
    special = [np.zeros(size), rows[0], rows[-1] * (1 + 1e-7), np.full(size, 1e30), np.full(size, -3e38)]
    tried = np.array([*near, *special], np.float32)
    alone, at_once = (trying(scene(pooled, context), tried) for trying in (one_by_one, together))
    for one, other in zip(alone, at_once, strict=True):
        assert one.weights is not None
        assert other.weights is not None
        assert list(one.weights.values()) == pytest.approx(list(other.weights.values()), rel=1e-7, abs=1e-9)
        assert (one.vector is None) == (other.vector is None)
        if one.vector is None or other.vector is None:
            continue
        np.testing.assert_allclose(one.vector, other.vector, rtol=3e-7, atol=1e-12)


def test_most_vectors_are_not_tried_one_by_one() -> None:
    seen = scene(*random_round(5, HISTORY))
    tried = [seen.mean + scale * seen.spread * np.ones(20) for scale in (-100.0, -1.0, 0.0, 1.0, 100.0)]
    seen.foresee(tried)
    # One by one, the rule would tell its figures.
    assert [dict(seen.aggregate(vector).figures) for vector in tried] == [{}] * len(tried)
    assert seen.aggregate(2.0 * seen.mean).figures


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_finds_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [random_round(seed, HISTORY, agent=agent, round_number=1) for seed in range(4) for agent in (1, 2, 3)]
    faster = [attack_named(name).collude(pooled, context) for pooled, context in rounds]
    monkeypatch.setattr(Scene, "foresee", lambda *arguments: None)
    for (pooled, context), found in zip(rounds, faster, strict=True):
        alone = attack_named(name).collude(pooled, context)
        np.testing.assert_array_equal(alone, found)


def test_a_rule_that_knows_only_one_by_one_is_asked_so() -> None:
    pooled, context = random_round(7, Choice("median"))
    seen = scene(pooled, context)
    seen.foresee([seen.mean])
    assert seen.aggregate(seen.mean).vector is not None


def test_where_all_attack_or_the_scale_is_known_each_is_tried_alone() -> None:
    pooled, context = random_round(3, HISTORY)
    everyone = {agent: pooled.get(agent, context.honest.get(agent)) for agent in range(1, 11)}
    seen = scene(everyone, changed(context, honest={}, attackers=tuple(range(1, 11))))  # type: ignore[arg-type]
    seen.foresee([seen.mean])
    assert seen.aggregate(seen.mean).vector is not None
    votes = known_votes(np.ones((4, 3), np.float32), context)
    assert History().try_each(votes, (0,), np.ones((2, 3), np.float32)) is None


def known_votes(matrix: NDArray[np.float32], context: Any) -> Votes:
    """Votes whose scale the server has told."""
    plan = RoundPlan(1, 16, 3)
    return Votes(tuple(range(1, len(matrix) + 1)), matrix, len(matrix), plan, context.task, server_scale=1.0)
