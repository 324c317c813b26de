"""Inside, Seesaw and Frame do what they say to a rule that remembers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from fedpg_client.attacks.adaptive import Frame, Inside, pushes
from fedpg_client.attacks.scene import length
from fedpg_common.choices import Choice
from fedpg_common.environments import make_environments
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import Memory, RoundPlan, Votes
from fedpg_common.learning.aggregators.history import History, beta_of
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.algorithms.base import Tools
from fedpg_server.learning.algorithms.fedpg_br import FedPGBR
from hypothesis import given, settings
from hypothesis import strategies as st
from support.attacks import attack_named
from support.scenes import known_round, random_round, scene, vectors

seeds = st.integers(0, 2**32 - 1)
HORIZONS = (1.0, 3.0, 9.0, 39.0, 199.0)


# Inside ---------------------------------------------------------------------------------------------------------------


def test_inside_by_hand() -> None:
    """Horizon 3 has β = 1/2: D_1 = 1.25 √(1/3 · 3/4) = 0.625, D_2 = 1.25 √(1/3 · 15/16) = 0.69877."""
    attack = Inside(horizon=3.0)
    assert attack.displacement(1) == pytest.approx(1.25)
    assert attack.displacement(2) == pytest.approx((0.6987712 - 0.5 * 0.625) / 0.5, rel=1e-6)


@given(st.integers(1, 400))
def test_inside_stays_at_the_knee_over_the_longest_horizon_and_below_it_over_the_others(rounds: int) -> None:
    """In the moving means of `history`, had it no noise of its own."""
    attack = Inside()
    deltas = [attack.displacement(t) for t in range(1, rounds + 1)]
    for horizon in HORIZONS:
        beta, mean = beta_of(horizon), 0.0
        for delta in deltas:
            mean = beta * mean + (1 - beta) * delta
        q = mean / np.sqrt((1 - beta) / (1 + beta) * (1 - beta ** (2 * rounds)))
        assert q <= 1.25 * (1 + 1e-6)
        if horizon == 199.0:
            assert q == pytest.approx(1.25, rel=1e-6)


def test_inside_pushes_against_the_honest_mean() -> None:
    pooled, context = random_round(3, round_number=5)
    seen = scene(pooled, context)
    offset = attack_named("inside").collude(pooled, context).astype(np.float64) - seen.mean
    assert length(offset) == pytest.approx(Inside().displacement(5) * seen.spread, rel=1e-4)
    assert float(offset @ seen.mean) == pytest.approx(-length(offset) * length(seen.mean), rel=1e-4)


def test_inside_keeps_its_standing_with_history() -> None:
    """For a hundred rounds, beside honest agents whose noise is as large as the rule believes."""
    rng, memory = np.random.default_rng(2), dict[str, Any]()
    least = 1.0
    for number in range(1, 101):
        rows = vectors(rng.standard_normal((7, 200)) / np.sqrt(200.0) + 0.5)
        pooled, context = known_round(rows, rows[:3], round_number=number)
        bad = attack_named("inside").collude(pooled, context)
        weights, memory = weigh(np.array([bad] * 3 + rows), memory)
        least = min(least, *weights[:3])
    assert least == 1.0


def weigh(matrix: Any, memory: Memory) -> tuple[list[float], dict[str, Any]]:
    """What `history` makes of a round with scale 1."""
    plan = RoundPlan(1, 16, 3)
    votes = Votes(tuple(range(1, len(matrix) + 1)), matrix.astype(np.float32), len(matrix), plan, CARTPOLE)
    result = History().aggregate(dataclasses.replace(votes, server_scale=1.0), memory)
    assert result.weights is not None
    return list(result.weights.values()), dict(result.memory)


# Seesaw ---------------------------------------------------------------------------------------------------------------


def test_seesaw_pushes_in_the_rounds_with_many_inner_steps() -> None:
    """It knows the server's N_t, and pushes and pays back about as often."""
    environments = make_environments(CARTPOLE)
    policy = make_policy(CARTPOLE, environments.observation_size, environments.action_space)
    algorithm = FedPGBR(Tools(CARTPOLE, 10, policy, 11, environments))
    sides, steps = [], []
    for number in range(1, 201):
        plan = algorithm.plan(number)
        given_round = random_round(number, round_number=number, batch_size=plan.batch_size)
        seen = scene(*given_round)
        offset = attack_named("seesaw").collude(*given_round).astype(np.float64) - seen.mean
        assert length(offset) == pytest.approx(1.25 * seen.spread, rel=1e-4)
        side = bool(offset @ seen.mean < 0)
        assert side == pushes(seen.context)
        sides.append(side)
        steps.append(plan.inner_steps)
    environments.close()
    assert 70 < sum(sides) < 130
    pushed = [n for n, side in zip(steps, sides, strict=True) if side]
    paid_back = [n for n, side in zip(steps, sides, strict=True) if not side]
    assert min(pushed) > 2
    assert np.mean(pushed) > 3 * np.mean(paid_back)


def test_seesaw_needs_the_runs_seed() -> None:
    pooled, context = random_round(0)
    with pytest.raises(UsageError, match="needs the run's seed"):
        attack_named("seesaw").collude(pooled, dataclasses.replace(context, run_seed=None))


# Frame ----------------------------------------------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=20)
def test_frame_costs_the_best_teachers_weight_and_itself_no_more_than_it_allows(seed: int) -> None:
    pooled, context = random_round(seed, Choice("history"))
    seen = scene(pooled, context)
    framed = Frame().framed(seen)
    gains = seen.gradients.astype(np.float64) @ seen.mean
    others = [row for row in range(10) if row not in (*framed, 0, 1, 2)]
    assert len(framed) == 3
    assert gains[list(framed)].min() >= gains[others].max()
    vector = attack_named("frame").collude(pooled, context).astype(np.float64)
    weights = seen.aggregate(vector).weights
    before = seen.aggregate(seen.mean).weights
    assert weights is not None
    assert before is not None
    if min(before[row + 1] for row in range(3)) >= 0.5:
        assert min(weights[row + 1] for row in range(3)) >= 0.5
        assert sum(weights[row + 1] for row in framed) <= sum(before[row + 1] for row in framed) + 1e-9
    offset = vector - seen.mean
    toward = seen.gradients[list(framed)].astype(np.float64).mean(axis=0) - seen.mean
    assert length(offset) < 1e-6 or float(offset @ toward) == pytest.approx(-length(offset) * length(toward), rel=1e-3)


def test_frame_is_honest_on_average_where_the_rule_gives_no_weights() -> None:
    pooled, context = random_round(1, Choice("median"))
    vector = attack_named("frame").collude(pooled, context)
    np.testing.assert_allclose(vector, scene(pooled, context).mean, rtol=1e-5)
