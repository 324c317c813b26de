"""Boundary, Worst-Down, Worst-Angle, Patient, Drift, Turns, Normalized and Boundary Split do what the rule allows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fedpg_client.attacks.boundary_split import first_radius, second_best
from fedpg_client.attacks.normalized import climb, deviation, honest_aggregate
from fedpg_client.attacks.scene import Scene, length
from fedpg_client.attacks.searches import DIRECTIONS, ascent, harm, turn
from fedpg_common.choices import Choice
from fedpg_common.environments import make_environments
from fedpg_common.errors import UsageError
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import CategoricalPolicy, GaussianPolicy, make_policy
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import find_task
from gymnasium.spaces import Box
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.attacks import attack_named
from support.attacks import context as plain_context
from support.scenes import changed, known_round, random_round, scene, vectors

seeds = st.integers(0, 2**32 - 1)
RULES = st.sampled_from(["fedpg", "median", "trimmed-mean", "multi-krum", "krum"])


def vector_of(name: str, given_round: tuple[dict[int, Vector], Any], **options: Any) -> Any:
    """What attacker 1 submits, float64."""
    return attack_named(name, **options).collude(*given_round).astype(np.float64)


def weights(seen: Scene, vector: Any) -> list[float]:
    """Those of the attackers."""
    given_weights = seen.aggregate(vector).weights
    assert given_weights is not None
    return [given_weights.get(row + 1, 0.0) for row in seen.attackers]


# At the edge ----------------------------------------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=30, derandomize=True)
def test_boundary_is_accepted_and_a_step_farther_out_it_is_not_or_does_less(seed: int) -> None:
    pooled, context = random_round(seed)
    seen = scene(pooled, context)
    vector = vector_of("boundary", (pooled, context))
    assert weights(seen, vector) == [1.0] * 3
    value = harm(seen, ascent)
    farther = seen.mean + 1.02 * (vector - seen.mean)
    assert value(farther) < value(vector)
    offset = vector - seen.mean
    assert float(offset @ seen.mean) == pytest.approx(-length(offset) * length(seen.mean), rel=1e-4)


def test_boundary_in_a_case_computed_by_hand() -> None:
    # Two agents at (0.02, 0), one attacker. K = 3, B_t = 4, σ = 0.06, δ = 0.6: 𝔗 = 0.12 √(2 ln 10 / 4) = 0.12876, and
    # two of three are a majority. The mean's norm stands in for the spread. At the edge, the attacker is 𝔗 from the
    # mean of all three when that is nearest to an honest vector: it may be at 0.02 − 𝔗.
    given_round = known_round(vectors([[0.02, 0.0]] * 2), vectors([[0.02, 0.0]]))
    radius = 0.12 * math.sqrt(2.0 * math.log(10.0) / 4.0)
    assert first_radius(given_round[1]) == pytest.approx(radius)
    assert vector_of("boundary", given_round) == pytest.approx([0.02 - radius, 0.0], abs=1e-4)


@given(seeds, RULES)
@settings(max_examples=15)
def test_worst_down_and_worst_angle_are_the_worst_of_all_candidates(seed: int, rule: str) -> None:
    pooled, context = random_round(seed, Choice(rule))
    seen = scene(pooled, context)
    down, angle = harm(seen, ascent), harm(seen, turn)
    by_down, by_angle = vector_of("worst-down", (pooled, context)), vector_of("worst-angle", (pooled, context))
    for name in DIRECTIONS:
        assert down(by_down) >= down(vector_of("boundary", (pooled, context), direction=name)) - 1e-6
    others = [seen.mean, -0.3 * seen.mean, -1.0 * seen.mean]
    others += [seen.mean + k * seen.spread * step(seen) for step in DIRECTIONS.values() for k in (0.1, 8.0)]
    for other in others:
        assert down(by_down) >= down(other) - 1e-6
        assert angle(by_angle) >= angle(other) - 1e-6


@given(seeds, st.sampled_from([0.0, 0.25, 0.9]))
@settings(max_examples=15)
@example(194, 0.9)
def test_patient_keeps_its_standing_and_goes_to_its_edge(seed: int, stealth: float) -> None:
    pooled, context = random_round(seed, Choice("support.scenes:Fading"))
    seen = scene(pooled, context)
    vector = vector_of("patient", (pooled, context), stealth=stealth)
    assert min(weights(seen, vector)) >= stealth
    unseen = harm(seen, ascent, stealth)  # which counts nothing that costs an attacker its standing
    for step in DIRECTIONS.values():
        for scale in np.linspace(0.0, 8.0, 81):
            assert unseen(vector) >= unseen(seen.mean + scale * seen.spread * step(seen)) - 0.02


def test_drift_keeps_its_direction_through_the_run() -> None:
    directions = []
    for seed in range(3):
        pooled, context = random_round(seed, round_number=seed + 1)
        seen = scene(pooled, context)
        offset = vector_of("drift", (pooled, context)) - seen.mean
        assert weights(seen, seen.mean + offset) == [1.0] * 3
        directions.append(offset / length(offset))
    assert float(directions[0] @ directions[1]) == pytest.approx(1.0, abs=1e-3)
    assert float(directions[0] @ directions[2]) == pytest.approx(1.0, abs=1e-3)
    pooled, context = random_round(0)
    with pytest.raises(UsageError, match="needs the run's seed"):
        attack_named("drift").collude(pooled, changed(context, run_seed=None))


def test_one_attacker_pushes_at_a_time() -> None:
    pushers = []
    for round_number in range(1, 7):
        pooled, context = random_round(1, round_number=round_number)
        sent = {agent: attack_named("turns").collude(pooled, changed(context, agent=agent)) for agent in pooled}
        pushers += [agent for agent in pooled if sent[agent] is not pooled[agent]]
        seen = scene(pooled, context)
        alone = (seen.attackers[pushers[-1] - 1],)
        assert harm(seen, ascent, pushers=alone)(sent[pushers[-1]].astype(np.float64)) > ascent(seen, seen.mean)
    assert pushers == [2, 3, 1, 2, 3, 1]


def test_a_rule_that_cannot_be_tried_is_one_sentence() -> None:
    pooled, context = random_round(0)

    class Broken:
        def aggregate(self, votes: Any, memory: Any) -> Any:
            raise RuntimeError("no\nway")

    seen = dataclasses.replace(scene(pooled, context), rule=Broken())
    with pytest.raises(UsageError, match="aggregator cannot be tried by an attacker: RuntimeError: no way"):
        seen.aggregate(None)


# Normalized -----------------------------------------------------------------------------------------------------------


def test_the_papers_search_steps_up_or_down_by_a_third_each_time() -> None:
    # Towards 1 from 0 with a first step of 0.9: up; ±0.3 misses, so down; then up by 0.1, 0.0333 and so forth.
    tried: list[float] = []

    def value(x: float) -> float:
        tried.append(x)
        return -abs(x - 1.0)

    found = climb(value, 0.0, 0.9)
    assert tried[:5] == pytest.approx([0.0, 0.9, 1.2, 0.6, 0.7])
    assert abs(found) <= 1.35
    assert climb(value, 0.0, 0.0) == 0.0
    assert len(tried) < 40


@given(seeds, RULES, st.sampled_from(["sgn", "uv", "std"]))
@settings(max_examples=15)
def test_normalized_is_a_turned_aggregate_and_the_grid_is_its_upper_bound(seed: int, rule: str, delta: str) -> None:
    pooled, context = random_round(seed, Choice(rule))
    seen = scene(pooled, context)
    turned = deviation(seen, honest_aggregate(seen))
    by_search = turned(vector_of("normalized", (pooled, context), delta=delta))
    by_grid = turned(vector_of("normalized-grid", (pooled, context), delta=delta))
    assert by_search <= by_grid + 1e-5
    assert by_grid <= 2.0 + 1e-9


def test_normalized_in_a_case_computed_by_hand() -> None:
    # The mean as the rule, everybody at (1, 0): Δ = (−1, 0), so D is 0 or, turned round, 2. λ = 0.83 leaves a + λΔ
    # upright, as do the later steps, so D stays 0 and each step goes down: λ < 0, g = a, and ζ ends at its start minus
    # its steps, 1.5 · 0.03.
    ones = vectors([[1.0, 0.0]] * 2)
    vector = vector_of("normalized", known_round(ones, ones[:1], Choice("mean")))
    assert vector == pytest.approx([1.0 - 0.045, 0.0], abs=1e-4)
    turned_round = vector_of("normalized", known_round(ones, ones[:1], Choice("mean")), lambda_step=3, zeta_step=9)
    assert turned_round[0] < -2.0, "far enough to turn the mean of all three"


def test_partial_knowledge_takes_the_attackers_gradients_for_the_others() -> None:
    own = vectors([[1.0, 0.0], [0.0, 1.0]])
    pooled, context = known_round(vectors([[5.0, 5.0]] * 3), own)
    assert scene(pooled, changed(context, honest={})).gradients.tolist() == [
        [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0],
    ]  # fmt: skip


# Boundary Split -------------------------------------------------------------------------------------------------------

TASK = find_task("CartPole-v1")


@pytest.fixture(scope="module")
def policy() -> Iterator[CategoricalPolicy]:
    environments = make_environments(TASK)
    made = make_policy(TASK, environments.observation_size, environments.action_space)
    assert isinstance(made, CategoricalPolicy)
    yield made
    environments.close()


def some_states(count: int = 40) -> Trajectories:
    rng = np.random.default_rng(5)
    return Trajectories(
        observations=rng.standard_normal((count, 4)).astype(np.float32),
        actions=np.zeros(count, np.int64), rewards=np.ones(count), episodes=np.zeros(count, np.int64), count=1,
    )  # fmt: skip


def log_probs(
    policy: CategoricalPolicy, theta: Vector, observations: NDArray[np.float32], actions: NDArray[np.int64]
) -> NDArray[np.float32]:
    return policy.score(theta, observations, actions, np.ones(len(actions), np.float32), 1.0).log_probs


def test_the_second_best_action_and_its_gap(policy: CategoricalPolicy) -> None:
    theta = policy.initial_parameters(np.random.default_rng(1))
    observations = some_states().observations
    gaps, second = second_best(policy, theta, observations)
    best = policy.actor(theta).greedy(observations)
    assert second.tolist() == (1 - best).tolist()
    likely = np.exp(log_probs(policy, theta, observations, best))
    assert gaps == pytest.approx(2.0 * likely - 1.0, abs=1e-6)


def test_boundary_split_goes_its_share_of_the_radius_towards_the_second_best_action(policy: CategoricalPolicy) -> None:
    theta = policy.initial_parameters(np.random.default_rng(1))
    context = plain_context(policy=policy, theta=theta)
    honest = np.full(policy.spec.size, 0.01, np.float32)
    attack, states = attack_named("boundary-split"), some_states()
    assert attack.tamper_trajectories(states, context) is states
    moved = attack.tamper_gradient(honest, context).astype(np.float64) - honest
    assert length(moved) == pytest.approx(0.9 * first_radius(context), rel=1e-4)
    gaps, second = second_best(policy, theta, states.observations)
    undecided = np.argsort(gaps)[:4]
    before = log_probs(policy, theta, states.observations[undecided], second[undecided])
    after_step = (theta - 0.1 * moved).astype(np.float32)  # the server goes down the gradient
    after = log_probs(policy, after_step, states.observations[undecided], second[undecided])
    assert after.mean() > before.mean()


def test_boundary_split_is_honest_where_actions_are_continuous(caplog: pytest.LogCaptureFixture) -> None:
    gaussian = GaussianPolicy(TASK, 4, Box(-1.0, 1.0, (2,)))
    context = plain_context(policy=gaussian, theta=np.zeros(gaussian.spec.size, np.float32))
    honest = np.ones(gaussian.spec.size, np.float32)
    attack = attack_named("boundary-split")
    for _ in range(3):
        attack.tamper_trajectories(some_states(), context)
        assert attack.tamper_gradient(honest, context) is honest
    assert len([record for record in caplog.records if "needs discrete actions" in record.message]) == 1
