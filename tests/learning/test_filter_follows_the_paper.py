"""FedPG-Aggregate decides as Algorithm 2 of Fan et al. 2021 says."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from fedpg_common.learning.aggregators import RoundPlan, Votes
from fedpg_common.tasks import CARTPOLE
from hypothesis import given
from hypothesis import strategies as st
from support.decisions import aggregate, narrow_radius, vectors


def test_r1_drops_what_is_far_from_the_majority() -> None:
    sigma = 1.0
    updates = vectors([0, 0], [0.1, 0], [0, 0.1], [9, 9], [0.1, 0.1])
    result = aggregate(updates, agents=5, sigma=sigma, batch_size=20)
    assert result.rule == "R1"
    assert result.radius == pytest.approx(narrow_radius(5, 20, sigma))
    assert result.accepted == (1, 2, 3, 5)
    assert result.vector is not None
    np.testing.assert_allclose(result.vector, [0.05, 0.05])


def test_r2_decides_when_too_few_are_near_the_median() -> None:
    # Three of five are together: a majority, and fewer than (1 − 0.3) · 5.
    updates = vectors([0], [0], [0], [1.5], [-1.5])
    assert aggregate(updates, agents=5, sigma=1.0, alpha=0.4).rule == "R1"
    result = aggregate(updates, agents=5, sigma=1.0, alpha=0.3)
    assert (result.rule, result.radius, result.accepted) == ("R2", 2.0, (1, 2, 3, 4, 5))


def test_r2_has_no_size_check_of_its_own() -> None:
    result = aggregate(vectors([0], [0], [0], [50], [90]), agents=5, sigma=1.0, alpha=0.0)
    assert (result.rule, result.accepted) == ("R2", (1, 2, 3))


def test_nobody_survives_when_no_vector_has_a_majority_near_it() -> None:
    result = aggregate(vectors([0], [10], [20], [30]), agents=4, sigma=1.0)
    assert (result.vector, result.accepted, result.rule, result.median_agent) == (None, (), "none", None)
    assert result.radius == 2.0


def test_half_is_no_majority() -> None:
    assert aggregate(vectors([0], [0], [9], [9]), agents=4, sigma=1.0).vector is None
    assert aggregate(vectors([0], [0], [0], [9]), agents=4, sigma=1.0).accepted == (1, 2, 3)


def test_a_federation_of_one_trusts_its_agent() -> None:
    result = aggregate(vectors([3, -4]), agents=1, sigma=1e-9)
    assert (result.rule, result.accepted, result.median_agent) == ("R1", (1,), 1)
    assert result.vector is not None
    assert result.vector.tolist() == [3, -4]


def test_identical_vectors_are_all_accepted_and_the_first_is_the_median() -> None:
    row = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    result = aggregate(dict.fromkeys(range(1, 8), row), agents=7, sigma=1e-30)
    assert (result.rule, result.accepted, result.median_agent) == ("R1", tuple(range(1, 8)), 1)
    assert result.vector is not None
    assert np.array_equal(result.vector, row)


def test_a_tie_for_the_median_goes_to_the_lowest_agent() -> None:
    updates = {agent: np.array([value], dtype=np.float32) for agent, value in ((4, 1), (2, -1), (9, 90))}
    result = aggregate(updates, agents=3, sigma=1.0)
    assert (result.median_agent, result.accepted, result.agents) == (2, (2, 4), (2, 4, 9))


def test_a_vector_at_the_radius_is_within() -> None:
    beyond = np.nextafter(np.float32(4), np.float32(5))
    at = aggregate(vectors([0, 0], [0, 0], [3, 4]), agents=3, sigma=2.5, alpha=0.0)
    over = aggregate(vectors([0, 0], [0, 0], [3, float(beyond)]), agents=3, sigma=2.5, alpha=0.0)
    assert (at.rule, at.accepted) == ("R2", (1, 2, 3))
    assert (over.rule, over.accepted) == ("R2", (1, 2))


def test_r1s_radius_is_the_papers() -> None:
    radius = narrow_radius(3, 16, sigma=0.06)
    for distance, accepted in ((radius * (1 - 1e-6), (1, 2, 3)), (radius * (1 + 1e-6), (1, 2))):
        result = aggregate(vectors([0], [0], [distance]), agents=3, sigma=0.06, batch_size=16)
        assert (result.rule, result.accepted) == ("R1", accepted)


def test_absent_agents_count_as_faulty() -> None:
    together = vectors(*[[0.0]] * 6)
    assert aggregate(together, agents=10, sigma=1.0).rule == "R1"
    five = {agent: together[agent] for agent in range(1, 6)}
    assert aggregate(five, agents=10, sigma=1.0).vector is None
    assert aggregate(five, agents=9, sigma=1.0).rule == "R2"  # a majority, and fewer than 0.6 · 9


@pytest.mark.parametrize(("agents", "alpha", "together"), [(50, 0.42, 29), (100, 0.29, 71)])
def test_the_size_check_does_not_suffer_from_rounding(agents: int, alpha: float, together: int) -> None:
    assert (1 - alpha) * agents > together or alpha * agents < agents - together  # were it not for rounding: equal
    rows = [[0.0]] * together + [[100.0 * place] for place in range(1, agents - together + 1)]
    assert aggregate(vectors(*rows), agents, sigma=1.0, alpha=alpha).rule == "R1"
    assert aggregate(vectors(*rows[1:]), agents, sigma=1.0, alpha=alpha).rule == "R2"


federations = st.integers(1, 9).flatmap(
    lambda agents: st.tuples(
        st.just(agents),
        st.integers(1, 3).flatmap(
            lambda size: st.dictionaries(
                st.integers(1, agents),
                st.lists(st.integers(-4, 4), min_size=size, max_size=size),
                min_size=1,
                max_size=agents,
            )
        ),
    )
)


@given(federations, st.integers(1, 12), st.integers(1, 30), st.sampled_from([0.0, 0.2, 0.3, 0.4, 0.49]))
def test_it_decides_as_exact_arithmetic_does(
    federation: tuple[int, dict[int, list[int]]], quarters: int, batch_size: int, alpha: float
) -> None:
    # Whole coordinates and quarters as σ: squared distances and R2's radius are exact.
    K, rows = federation
    sigma = quarters / 4
    updates = {agent: np.array(row, dtype=np.float32) for agent, row in rows.items()}
    result = aggregate(updates, K, sigma, batch_size, alpha)

    def try_radius(radius_squared: Fraction) -> tuple[list[int], dict[int, list[int]]]:
        near = {a: [b for b in sorted(rows) if squared(rows[a], rows[b]) <= radius_squared] for a in sorted(rows)}
        S = [agent for agent in near if 2 * len(near[agent]) > K]
        mean = [Fraction(sum(column), len(S)) for column in zip(*(rows[agent] for agent in S), strict=True)]
        offsets = {agent: squared(rows[agent], mean) for agent in S}
        least = min(offsets.values(), default=Fraction(0))
        # Equals in exact arithmetic may differ by a rounding: any of them is a median.
        return [agent for agent in S if offsets[agent] == least], near

    narrow = Fraction(narrow_radius(K, batch_size, sigma)) ** 2
    medians, near = try_radius(narrow)
    rule = "R1"
    enough = (1 - Fraction(str(alpha))) * K
    if result.rule != "R1":
        assert not medians or any(len(near[median]) < enough for median in medians)
        medians, near = try_radius(Fraction(quarters, 2) ** 2)
        rule = "R2"
    if not medians:
        assert (result.rule, result.vector, result.accepted) == ("none", None, ())
        return
    assert result.rule == rule
    assert result.median_agent in medians
    G = near[result.median_agent]
    assert rule == "R2" or len(G) >= enough
    assert result.accepted == tuple(G)
    assert result.vector is not None
    exact = [Fraction(sum(column), len(G)) for column in zip(*(rows[agent] for agent in G), strict=True)]
    assert result.vector.tolist() == np.array([float(value) for value in exact], dtype=np.float32).tolist()


def squared(a: Sequence[int | Fraction], b: Sequence[int | Fraction]) -> Fraction:
    """Squared distance."""
    return sum(((Fraction(x) - Fraction(y)) ** 2 for x, y in zip(a, b, strict=True)), Fraction(0))


def test_nobody_tells_an_aggregator_who_attacks() -> None:
    # Whatever the votes tell, they tell of all agents alike: names, vectors, the size, the plan and the published task.
    told = {field.name for field in dataclasses.fields(Votes)}
    assert told == {
        "agents",
        "matrix",
        "federation_size",
        "plan",
        "task",
        "server_gradient",
        "server_scale",
        "tolerated",
        "trajectories",
        "batch_sizes",
    }
    assert not {"byzantine", "attack"} & {field.name for part in (RoundPlan, type(CARTPOLE))
                                          for field in dataclasses.fields(part)}  # fmt: skip
