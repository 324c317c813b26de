"""ALIE, IPM, Min-Max, Min-Sum, Trim and Mimic submit what their papers say; the line searches find what is worst."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fedpg_client.attacks import Knowledge, build_attacker
from fedpg_client.attacks.moments import largest_z
from fedpg_client.attacks.scene import length
from fedpg_client.attacks.searches import along, displacement, harm, worst
from fedpg_client.attacks.trim import beyond
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.parameters import Vector
from hypothesis import given, settings
from hypothesis import strategies as st
from support.attacks import attack_named
from support.scenes import changed, known_round, random_round, scene, vectors

seeds = st.integers(0, 2**32 - 1)
OWN = {"alie", "trim-partial", "normalized-partial"}
OMNISCIENT = (
    "alie-optimised", "ipm", "ipm-optimised", "min-max", "min-sum", "mimic", "trim", "normalized", "normalized-grid",
    "boundary", "worst-down", "worst-angle", "patient", "drift", "turns",
)  # fmt: skip
HONEST = [[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]]
"""Their mean is (2, 1); distances are 2 and twice √10."""


def submitted(name: str, given_round: tuple[dict[int, Vector], Any], **settings: Any) -> Vector:
    """What attacker 1 submits."""
    return attack_named(name, **settings).collude(*given_round)


def small_round(**changes: Any) -> tuple[dict[int, Vector], Any]:
    return known_round(vectors(HONEST), vectors([[9.0, 9.0]]), **changes)


def test_each_attack_declares_what_it_knows() -> None:
    assert {name: attack_named(name).knowledge for name in OMNISCIENT} == dict.fromkeys(
        OMNISCIENT, Knowledge.OMNISCIENT
    )
    assert {attack_named(name).knowledge for name in OWN} == {Knowledge.COLLUDERS}
    assert attack_named("boundary-split").knowledge is Knowledge.OWN


@pytest.mark.parametrize("name", [*OMNISCIENT, *sorted(OWN)])
@pytest.mark.parametrize("rule", ["fedpg", "mean", "median", "trimmed-mean", "krum", "multi-krum"])
def test_the_same_round_gives_the_same_finite_vector_for_every_rule(name: str, rule: str) -> None:
    attack = attack_named(name)
    pooled, context = random_round(3, Choice(rule))
    first = [
        attack.collude(pooled, changed(context, agent=agent, rng=np.random.default_rng(agent))) for agent in pooled
    ]
    again = [
        attack_named(name).collude(pooled, changed(context, agent=agent, rng=np.random.default_rng(agent)))
        for agent in pooled
    ]
    assert [vector.tobytes() for vector in first] == [vector.tobytes() for vector in again]
    assert all(vector.dtype == np.float32 and np.isfinite(vector).all() for vector in first)
    assert not attack.unanimous or len({vector.tobytes() for vector in first}) == 1


@pytest.mark.parametrize("name", [*OMNISCIENT, *sorted(OWN)])
def test_extreme_gradients_give_finite_vectors(name: str) -> None:
    largest = np.finfo(np.float32).max
    for rows in ([[largest] * 6, [-largest] * 6], [[0.0] * 6] * 2, [[1e-38] * 6, [0.0] * 6]):
        assert np.isfinite(submitted(name, known_round(vectors(rows), vectors(rows)))).all()


@pytest.mark.parametrize("name", [*OMNISCIENT, *sorted(OWN)])
def test_a_federation_of_attackers_alone_has_nobody_to_hide_among(name: str) -> None:
    assert np.isfinite(submitted(name, known_round([], vectors([[1.0, 2.0], [0.0, 1.0]])))).all()


# ALIE and IPM ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("agents", "attackers", "z"), [(10, 3, 0.18), (30, 9, 0.43), (10, 5, 0.84), (10, 10, 0.0)])
def test_alie_hides_behind_the_papers_quantile(agents: int, attackers: int, z: float) -> None:
    assert largest_z(agents, attackers) == pytest.approx(z, abs=0.005)


def test_alie_is_z_deviations_below_the_attackers_mean() -> None:
    # Mean (2, 1), standard deviations 1 and √3.
    vector = submitted("alie", known_round([], vectors(HONEST)), z=2)
    assert vector == pytest.approx([0.0, 1.0 - 2.0 * 3.0**0.5])
    pooled, context = small_round()
    assert submitted("alie", (pooled, context), z=2) is pooled[1], "alone, it has no deviations"


def test_ipm_is_the_honest_mean_turned_round() -> None:
    assert submitted("ipm", small_round(), factor=0.5) == pytest.approx([-1.0, -0.5])


@given(seeds, st.sampled_from(["fedpg", "median", "trimmed-mean", "multi-krum"]))
@settings(max_examples=20)
def test_the_optimised_forms_do_no_less_harm_than_any_factor_of_their_grid(seed: int, rule: str) -> None:
    pooled, context = random_round(seed, Choice(rule))
    seen = scene(pooled, context)
    value = harm(seen, displacement)
    by_alie = value(submitted("alie-optimised", (pooled, context)).astype(np.float64))
    by_ipm = value(submitted("ipm-optimised", (pooled, context)).astype(np.float64))
    for factor in np.geomspace(0.1, 10.0, 12):
        rest = 1e-6 * seen.spread
        assert by_alie >= value(seen.mean - factor * seen.deviations) - rest
        assert by_alie >= value(seen.mean + factor * seen.deviations) - rest
    for factor in np.geomspace(0.1, 30.0, 12):
        assert by_ipm >= value(-factor * seen.mean) - 1e-6 * seen.spread


# Line searches --------------------------------------------------------------------------------------------------------


def test_a_line_search_finds_the_edge_of_what_is_accepted_in_a_fixed_number_of_tries() -> None:
    tries: list[float] = []

    def value(vector: Any) -> float:
        tries.append(float(vector[0]))
        return float(vector[0]) if vector[0] <= 5.3 else float("-inf")

    found = along(value, np.zeros(1), np.ones(1), [0.0, 1.0, 2.0, 4.0, 8.0])
    assert 5.299 < found.value <= 5.3
    assert len(tries) == 5 + 2 * 12


def test_where_nothing_is_accepted_the_attackers_submit_the_honest_mean() -> None:
    pooled, context = small_round()  # its gradients lie much farther apart than the radius
    seen = scene(pooled, context)
    assert worst(seen, [along(harm(seen, displacement), seen.mean, np.ones(2), [0.0, 1.0])]) is seen.mean
    assert submitted("worst-down", (pooled, context)) == pytest.approx([2.0, 1.0])


# Min-Max and Min-Sum --------------------------------------------------------------------------------------------------


def excess(seen: Any, vector: Any, kind: str) -> float:
    """How far a vector is beyond the bound, relative to it."""
    mutual = np.square(seen.honest[:, None] - seen.honest[None]).sum(axis=2)
    own = np.square(vector - seen.honest).sum(axis=1)
    if kind == "min-max":
        return float(own.max() / mutual.max()) - 1.0
    return float(own.sum() / mutual.sum(axis=1).max()) - 1.0


@given(seeds, st.sampled_from(["min-max", "min-sum"]), st.sampled_from(["mean", "sign", "std"]))
def test_min_max_and_min_sum_go_as_far_as_their_bound_and_no_farther(seed: int, kind: str, direction: str) -> None:
    pooled, context = random_round(seed)
    seen = scene(pooled, context)
    vector = submitted(kind, (pooled, context), direction=direction).astype(np.float64)
    offset = vector - seen.mean
    assert abs(excess(seen, vector, kind)) < 1e-4
    assert excess(seen, seen.mean + 1.01 * offset, kind) > 1e-4
    against = {"mean": seen.mean, "sign": np.sign(seen.mean), "std": seen.deviations}[direction]
    assert float(offset @ against) / (length(offset) * length(against)) == pytest.approx(-1.0)


def test_min_sum_in_a_case_computed_by_hand() -> None:
    # The third agent's squared distances sum to 20, and the mean's own to 8: γ² = (20 − 8)/3 along −(2, 1)/√5.
    assert submitted("min-sum", small_round()) == pytest.approx([2.0 - 4.0 / 5.0**0.5, 1.0 - 2.0 / 5.0**0.5])


# Trim -----------------------------------------------------------------------------------------------------------------


def test_trim_draws_just_beyond_the_honest_extreme_against_the_mean() -> None:
    honest = np.array([[1.0, -1.0, -2.0, -8.0, 1.0], [4.0, 5.0, -4.0, 2.0, -1.0]])
    near, far = beyond(honest, 2.0)
    # Means: 2.5, 2, −3, −3, 0.
    assert near.tolist() == [1.0, -1.0, -2.0, 2.0, 0.0]
    assert far.tolist() == [0.5, -2.0, -1.0, 4.0, 0.0]


@given(seeds)
def test_trim_lies_in_its_interval_and_turns_with_the_gradients(seed: int) -> None:
    pooled, context = random_round(seed, rng=np.random.default_rng(seed))
    near, far = beyond(scene(pooled, context).honest, 2.0)
    vector = submitted("trim", (pooled, context)).astype(np.float64)
    room = 1e-6 * np.maximum(np.abs(near), np.abs(far))
    assert (np.minimum(near, far) - room <= vector).all()
    assert (vector <= np.maximum(near, far) + room).all()
    mirrored = changed(
        context, rng=np.random.default_rng(seed), honest={agent: -row for agent, row in context.honest.items()}
    )
    assert np.array_equal(submitted("trim", ({agent: -row for agent, row in pooled.items()}, mirrored)), -vector)


@given(seeds)
def test_partial_trim_is_three_to_four_deviations_against_the_attackers_mean(seed: int) -> None:
    pooled, context = random_round(seed, rng=np.random.default_rng(seed))
    own = np.stack(list(pooled.values())).astype(np.float64)
    vector = submitted("trim-partial", (pooled, context)).astype(np.float64)
    deviations = (own.mean(axis=0) - vector) * np.sign(own.mean(axis=0)) / own.std(axis=0)
    assert (deviations > 2.99).all()
    assert (deviations < 4.01).all()


# Mimic ----------------------------------------------------------------------------------------------------------------


def test_mimic_copies_one_honest_agent() -> None:
    pooled, context = small_round()
    assert submitted("mimic", (pooled, context)).tolist() == HONEST[0]
    assert submitted("mimic", (pooled, context), agent=4).tolist() == HONEST[2]
    assert submitted("mimic", (pooled, context), agent=1).tolist() == HONEST[0], "it attacks itself: the next one"
    assert submitted("mimic", (pooled, context), agent=9).tolist() == HONEST[0], "there is none: the first one"


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("alie", {"z": "much"}, "attack alie: z must be a number from -1e+06 to 1e+06, not 'much'"),
        ("ipm", {"factor": -1}, "factor must be a number from 0 to 1e+06, not -1"),
        ("alie-optimised", {"largest": 0}, "largest must be a number from 0.001 to 1e+06, not 0"),
        ("min-max", {"direction": "down"}, "direction must be one of mean, sign, std, not 'down'"),
        ("min-sum", {"direction": 3}, "direction must be one of mean, sign, std, not 3"),
        ("mimic", {"agent": 0}, "agent must be an agent's index, a whole number from 1, not 0"),
        ("trim", {"b": 0.5}, "b must be a number from 1 to 1e+06, not 0.5"),
        ("trim-partial", {"nearest": 5}, "farthest must not be below nearest: 4.0 is below 5"),
        ("normalized", {"delta": "sign"}, "delta must be one of sgn, uv, std, not 'sign'"),
        ("normalized-grid", {"zetas": 0}, "zetas must be a whole number from 1 to 1000, not 0"),
        ("normalized-grid", {"lambdas": 2.5}, "lambdas must be a whole number"),
        ("boundary", {"direction": []}, "direction must be one of mean, sign, std, not []"),
        ("worst-down", {"reach": 0}, "reach must be a number from 0.1 to 1e+06, not 0"),
        ("patient", {"stealth": 2}, "stealth must be a number from 0 to 1, not 2"),
        ("turns", {"attack": "alie"}, "its settings are reach (default 8.0), stealth (default 0.0)"),
        ("boundary-split", {"share": -0.1}, "share must be a number from 0 to 1, not -0.1"),
    ],
)
def test_a_setting_that_is_not_one_is_refused_with_a_sentence(
    name: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build_attacker(Choice(name, settings))
    assert sentence in str(caught.value)
