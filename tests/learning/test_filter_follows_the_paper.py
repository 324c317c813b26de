"""FedPG-Aggregate decides as Algorithm 2 of Fan et al. 2021 says, whatever the vectors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import threadpoolctl
import torch
from fedpg_common.learning.aggregators import Aggregate, Aggregator, RoundPlan, Votes, pairwise_distances
from fedpg_common.learning.aggregators.fedpg import FedPG
from fedpg_common.learning.aggregators.mean import Mean
from fedpg_common.learning.parameters import Vector
from fedpg_common.tasks import CARTPOLE
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float32).max)
DELTA = 0.6
ALPHA = 0.4


def vectors(*rows: Sequence[float]) -> dict[int, Vector]:
    """The rows as the updates of agents 1, 2, …"""
    return {agent: np.array(row, dtype=np.float32) for agent, row in enumerate(rows, start=1)}


def narrow_radius(agents: int, batch_size: int, sigma: float) -> float:
    """𝔗 = 2σ√(V/B_t), V = 2 ln(2K/δ)."""
    return 2 * sigma * math.sqrt(2 * math.log(2 * agents / DELTA) / batch_size)


@dataclass(frozen=True)
class Decision:
    """What an aggregator made of votes."""

    result: Aggregate
    agents: tuple[int, ...]
    distances: NDArray[np.float64]

    @property
    def vector(self) -> Vector | None:
        return self.result.vector

    @property
    def rule(self) -> str:
        return self.result.rule

    @property
    def accepted(self) -> tuple[int, ...]:
        """Whose votes counted; all of them where the rule selects nobody in particular."""
        weights = dict.fromkeys(self.agents, 1.0) if self.result.weights is None else self.result.weights
        return tuple(agent for agent in self.agents if weights.get(agent, 0.0) > 0)

    @property
    def radius(self) -> float:
        return self.result.figures["radius"]

    @property
    def median_agent(self) -> int | None:
        return self.result.median_agent


def decide(
    aggregator: Aggregator, updates: Mapping[int, Vector], agents: int, batch_size: int = 16, alpha: float = ALPHA
) -> Decision:
    """What an aggregator makes of these votes, one at least, whatever the order in which they are given."""
    order = tuple(sorted(updates))
    task = dataclasses.replace(CARTPOLE, alpha=alpha, delta=DELTA)
    votes = Votes(order, np.stack([updates[agent] for agent in order]), agents, RoundPlan(1, batch_size, 1), task)
    votes.matrix.flags.writeable = False
    return Decision(aggregator.aggregate(votes, {}), order, votes.distances)


def aggregate(
    updates: Mapping[int, Vector], agents: int, sigma: float, batch_size: int = 10**6, alpha: float = ALPHA
) -> Decision:
    """The filter; with the default batch size, R1's radius is a hundredth of R2's or less."""
    return decide(FedPG(sigma), updates, agents, batch_size, alpha)


def mean_aggregate(updates: Mapping[int, Vector]) -> Decision:
    """The plain mean."""
    return decide(Mean(), updates, len(updates))


# Hand-computed cases --------------------------------------------------------------------------------------------------


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


# Hostile numbers ------------------------------------------------------------------------------------------------------


def test_nearly_equal_large_vectors_do_not_cancel() -> None:
    base = np.full(5000, 1e6, dtype=np.float32)
    near, far = base.copy(), base.copy()
    near[7] = np.nextafter(base[7], np.float32(np.inf))
    far[:2] += 3.0, 4.0
    distances = pairwise_distances(np.stack([base, near, far]))
    assert distances[0].tolist() == [0.0, 0.0625, 5.0]
    result = aggregate({1: base, 2: near, 3: far}, agents=3, sigma=2.0, batch_size=10**4)
    assert (result.rule, result.accepted) == ("R1", (1, 2))


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


# Distances ------------------------------------------------------------------------------------------------------------


def test_distances_are_those_of_plain_differences() -> None:
    matrix = np.random.default_rng(2).standard_normal((7, 2500)).astype(np.float32)
    expected = [[math.dist(a, b) for b in matrix.tolist()] for a in matrix.tolist()]
    np.testing.assert_allclose(pairwise_distances(matrix), expected, rtol=1e-13)
    assert pairwise_distances(matrix[:1]).tolist() == [[0.0]]


@given(st.integers(0, 2**32 - 1), st.floats(-8, 2), st.floats(-30, 30))
def test_distances_keep_nine_digits_however_close_the_vectors(seed: int, closeness: float, size: float) -> None:
    # Two tight groups, a loner and a twin: some pairs are close, some are not.
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((2, 1100))[[0, 0, 0, 0, 1, 1, 1]]
    rows = centres + 10.0**closeness * rng.standard_normal((7, 1100))
    rows = np.concatenate([rows, rows[:1], rng.standard_normal((1, 1100))]) * 10.0**size
    matrix = rows.astype(np.float32)
    expected = [[math.dist(a, b) for b in matrix.tolist()] for a in matrix.tolist()]
    np.testing.assert_allclose(pairwise_distances(matrix), expected, rtol=1e-9)


def test_distances_do_not_depend_on_the_number_of_threads() -> None:
    matrix = np.random.default_rng(3).standard_normal((90, 3000)).astype(np.float32)
    matrix[30:60] = matrix[30] * (1 + 1e-5 * matrix[30:60])  # these are close to each other
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            with threadpoolctl.threadpool_limits(threads):
                results.append(pairwise_distances(matrix).tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(set(results)) == 1


# Properties -----------------------------------------------------------------------------------------------------------

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
