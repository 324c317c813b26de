"""The robust rules are what their papers say: worked out by hand, and again by plain code."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from fedpg_common.learning.aggregators.eigen import top_eigenpair
from fedpg_common.learning.aggregators.sign_guard import largest_cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from support.votes import ROBUST, accepted, aggregated, honest, mixed, seeds, vector_of, votes_of


def test_meamed_takes_the_values_around_the_median_of_each_coordinate_for_itself() -> None:
    # Medians 3 and 20; the three nearest are 2, 3, 1 and 20, 21, 10.
    votes = votes_of([[1, 10], [2, 500], [3, 20], [6, 21], [90, -300]])
    assert vector_of(aggregated(votes, "meamed", faulty=2)).tolist() == [2, 17]
    # The median of an even number lies between: 2.5, whose two nearest are 2 and 3.
    assert vector_of(aggregated(votes_of([[1], [2], [3], [9]]), "meamed", faulty=2)).tolist() == [2.5]
    # 1 and 3 are equally far from 2: the smaller counts.
    assert vector_of(aggregated(votes_of([[3], [1], [2]]), "meamed", faulty=1)).tolist() == [1.5]
    assert vector_of(aggregated(votes_of([[3], [1], [2]]), "meamed", faulty=9)).tolist() == [2]


@settings(max_examples=50)
@given(seeds, st.integers(1, 11), st.integers(0, 11))
def test_meamed_is_that_of_plain_code(seed: int, count: int, faulty: int) -> None:
    rows = honest(seed, count, 4).astype(np.float64)
    kept = max(1, count - faulty)
    expected = []
    for column in rows.T:
        nearest = np.argsort(np.abs(np.sort(column) - np.median(column)), kind="stable")[:kept]
        expected.append(np.sort(column)[nearest].mean())
    found = vector_of(aggregated(votes_of(rows), "meamed", faulty=faulty))
    if kept > 1 or count % 2:  # of two values either side of their median, rounding says which is nearer
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_geometric_median_of_a_triangle_sees_its_corners_at_equal_angles() -> None:
    corners = np.array([[0, 0], [4, 0], [1, 3]], np.float64)
    point = vector_of(aggregated(votes_of(corners), "geometric-median", steps=500))
    directions = (corners - point) / np.linalg.norm(corners - point, axis=1)[:, None]
    assert np.abs(directions.sum(axis=0)).max() < 1e-5
    # A point that holds more than half of the votes is the median.
    assert vector_of(aggregated(votes_of([[1, 1]] * 3 + [[9, -5], [7, 7]]), "geometric-median")).tolist() == [1, 1]


def test_mda_by_hand() -> None:
    votes = votes_of([[0], [1], [2], [5], [5.5]])
    result = aggregated(votes, "mda", faulty=2)
    assert (accepted(result), vector_of(result).tolist(), result.figures) == ([1, 2, 3], [1], {"diameter": 2.0})
    assert accepted(aggregated(votes, "mda", faulty=3)) == [4, 5]
    assert accepted(aggregated(votes, "mda", faulty=0)) == [1, 2, 3, 4, 5]
    assert len(accepted(aggregated(votes, "mda", faulty=9))) == 1
    # The pair two apart decides the diameter of {1, 2, 3} and of {1, 2, 4}: the fourth lies nearer to the others.
    tied = np.array([[-1, 0], [1, 0], [0, 1.7], [0, -0.9], [9, 9]])
    assert accepted(aggregated(votes_of(tied), "mda", faulty=2)) == [1, 2, 4]
    assert accepted(aggregated(votes_of(tied[::-1]), "mda", faulty=2)) == [2, 4, 5]


@settings(max_examples=50)
@given(seeds, st.integers(2, 10), st.integers(0, 9), st.booleans())
def test_mda_is_the_best_of_all_subsets(seed: int, count: int, faulty: int, coarse: bool) -> None:
    rows = np.random.default_rng(seed).standard_normal((count, 3))
    votes = votes_of(np.round(rows) if coarse else rows)  # rounded there are many equal distances
    size = max(1, count - faulty)
    result = aggregated(votes, "mda", faulty=faulty)
    best = min(votes.distances[np.ix_(subset, subset)].max() for subset in itertools.combinations(range(count), size))
    chosen = [agent - 1 for agent in accepted(result)]
    assert len(chosen) == size
    assert votes.distances[np.ix_(chosen, chosen)].max() == result.figures["diameter"] == best


@settings(max_examples=30)
@given(seeds, st.integers(0, 3))
def test_bulyan_is_that_of_plain_code(seed: int, faulty: int) -> None:
    rows = honest(seed, 15)
    left = list(range(15))
    chosen: list[int] = []
    while len(chosen) < 15 - 2 * faulty:
        neighbours = min(max(1, len(left) - faulty - 2), len(left) - 1)
        scores = []
        for row in left:
            squares = sorted(float(np.square(rows[row].astype(float) - rows[at]).sum()) for at in left if at != row)
            scores.append((sum(squares[:neighbours]), sum(squares[: neighbours + 1])))
        chosen.append(left.pop(scores.index(min(scores))))
    result = aggregated(votes_of(rows), "bulyan", faulty=faulty)
    if faulty:  # else all are selected in the end
        assert accepted(result) == sorted(row + 1 for row in chosen)
    around = aggregated(votes_of(rows[sorted(chosen)]), "meamed", faulty=2 * faulty)
    assert vector_of(result).tolist() == vector_of(around).tolist()
    assert result.figures == {"averaged": 15.0 - 4 * faulty}


def test_centered_clipping_by_hand() -> None:
    votes = votes_of([[0, 0], [2, 0], [10, 0]])
    # From the median (2, 0): distances 2, 0, 8; with radius 2 the shares are 1, 1 and 1/4, and the step (−2 + 0 + 2)/3.
    result = aggregated(votes, "centered-clipping", radius=2, steps=1)
    assert (vector_of(result).tolist(), result.weights) == ([2, 0], {1: 1.0, 2: 1.0, 3: 0.25})
    assert result.figures == {"clipping-radius": 2.0, "clipped": 1.0}
    assert {name: vector.tolist() for name, vector in result.memory.items()} == {"centre": [2, 0]}
    # The next round starts there, whatever its median is.
    later = aggregated(votes_of([[8, 0]] * 3), "centered-clipping", result.memory, radius=2, steps=1)
    assert vector_of(later).tolist() == [4, 0]


def test_momenta_are_kept_by_agent_and_wait_for_the_absent() -> None:
    chosen: dict[str, Any] = {"momentum": 0.75, "steps": 1}
    first = aggregated(votes_of([[0], [4], [8]]), "centered-clipping", **chosen)
    memory = {name: vector.tolist() for name, vector in first.memory.items()}
    assert {name: memory[name] for name in memory if name != "centre"} == {
        "momentum/1": [0], "momentum/2": [4], "momentum/3": [8],
    }  # fmt: skip
    second = aggregated(votes_of([[4], [0]], K=3), "centered-clipping", first.memory, **chosen)
    assert {name: vector.tolist() for name, vector in second.memory.items() if name != "centre"} == {
        "momentum/1": [1], "momentum/2": [3], "momentum/3": [8],
    }  # fmt: skip


def test_caf_by_hand() -> None:
    # The fourth lies farthest along the only direction: it loses all weight, and the three others are the same.
    result = aggregated(votes_of([[1, 0], [1, 0], [1, 0], [7, 0]]), "caf", faulty=1)
    assert (vector_of(result).tolist(), accepted(result)) == ([1, 0], [1, 2, 3])
    assert result.figures["top-eigenvalue"] == 0
    plain = aggregated(votes_of([[0, 1], [2, 3]]), "caf", faulty=0)
    assert vector_of(plain).tolist() == [1, 2], "the mean, of which nothing is filtered"


def test_caf_is_that_of_plain_code_on_the_covariance_itself() -> None:
    for seed in range(10):
        rows = honest(seed, 9, 5).astype(np.float64)
        rows[0] += 4
        weights, best, best_mean = np.ones(9), math.inf, np.zeros(5)
        while weights.sum() > 9 - 2 * 3:
            mean = np.average(rows, axis=0, weights=weights)
            values, vectors = np.linalg.eigh(np.cov(rows.T, aweights=weights, ddof=0))
            if values[-1] < best:
                best, best_mean = values[-1], mean
            along = np.square((rows - mean) @ vectors[:, -1])
            weights = np.maximum(weights * (1 - along / along[weights > 1e-12].max()), 0)
        result = aggregated(votes_of(rows), "caf", faulty=3)
        np.testing.assert_allclose(vector_of(result), best_mean, rtol=1e-4, atol=1e-4)
        assert result.figures["top-eigenvalue"] == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("kind", ["noise", "far", "blocks", "zero", "low rank"])
def test_large_gram_matrices_have_their_exact_top_eigenvalue(kind: str) -> None:
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((260, 6 if kind == "low rank" else 400))
    rows[:3] *= {"far": 1e18, "zero": 0}.get(kind, 1)
    gram = rows @ rows.T * (0 if kind == "zero" else 1)
    if kind == "blocks":  # the longest column has no part in the top eigenvector
        gram = np.diag([9.0] + [1.0] * 259)
        gram[1:, 1:] += 0.5
    value, vector = top_eigenpair(gram)
    assert value == pytest.approx(np.linalg.eigvalsh(gram)[-1], rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(gram @ vector, value * vector, rtol=0, atol=1e-8 * max(value, 1e-8))
    assert np.linalg.norm(vector) == pytest.approx(1)


def test_smea_finds_the_subset_with_the_least_eigenvalue_of_the_covariance_itself() -> None:
    for seed in range(5):
        rows = honest(seed, 8, 30).astype(np.float64)
        result = aggregated(votes_of(rows), "smea", faulty=2)
        top = {
            subset: float(np.linalg.eigvalsh(np.cov(rows[list(subset)].T, ddof=0))[-1])
            for subset in itertools.combinations(range(8), 6)
        }
        chosen = min(top, key=lambda subset: top[subset])
        assert accepted(result) == [row + 1 for row in chosen]
        assert result.figures["top-eigenvalue"] == pytest.approx(top[chosen], rel=1e-5)


def test_votes_that_are_all_the_same_are_the_answer() -> None:
    for name in ROBUST:
        for row in ([0, 0, 0], [3, -1, 2]):
            if name != "fltrust" or any(row):
                found = vector_of(aggregated(votes_of([row] * 12), name, **ROBUST[name]))
                np.testing.assert_allclose(found, row, rtol=1e-6, err_msg=name)


def test_monna_by_hand() -> None:
    votes = votes_of([[0], [1], [2], [10], [11], [12]], own=[11])
    result = aggregated(votes, "monna", faulty=3)
    assert (vector_of(result).tolist(), accepted(result)) == ([11], [4, 5, 6])
    assert accepted(aggregated(votes, "monna", faulty=9)) == [5]


def test_fltrust_by_hand() -> None:
    # Cosines 1, 0.6, −1 and none for the zero; all as long as the server's, which is 2.
    votes = votes_of([[4, 0], [3, 4], [-9, 0], [0, 0]], own=[2, 0])
    result = aggregated(votes, "fltrust")
    assert vector_of(result).tolist() == pytest.approx([(2 + 0.6 * 1.2) / 1.6, 0.6 * 1.6 / 1.6])
    assert result.weights == {1: 1.0, 2: pytest.approx(0.6), 3: 0.0, 4: 0.0}
    for own in ([-2.0, 0.0], [0.0, 0.0]):
        nothing = aggregated(votes_of([[4, 0], [3, 0]], own=own), "fltrust")
        assert (nothing.vector, nothing.rule, nothing.weights) == (None, "none", {1: 0.0, 2: 0.0})


def test_signguard_by_hand() -> None:
    # The median length is 2. The sixth has other signs, the seventh is too long, the eighth too short.
    votes = votes_of([[1] * 4] * 4 + [[1.5] * 4, [-1] * 4, [100] * 4, [0.01] * 4])
    result = aggregated(votes, "signguard")
    assert (accepted(result), vector_of(result).tolist()) == ([1, 2, 3, 4, 5], [1] * 4)
    assert result.figures == {"clipping-length": 2.0, "agreed": 7.0, "usual": 6.0}


def test_without_a_vote_that_passes_there_is_no_mu() -> None:
    # The largest cluster's three votes are all much longer than the median of all seven.
    votes = votes_of([[900, 900]] * 3 + [[1, -1], [0, 1], [-1, 0], [-1, -1]])
    result = aggregated(votes, "signguard", longest=1.5)
    assert (result.vector, result.rule, result.weights) == (None, "none", {})
    # Each draw of a few coordinates leaves out one of two.
    empty = aggregated(votes_of(np.random.default_rng(0).standard_normal((5, 900))), "dnc", faulty=3, draws=90,
                       share=0.05)  # fmt: skip
    assert (empty.vector, empty.rule, empty.weights) == (None, "none", {})


def test_mean_shift_finds_the_largest_heap() -> None:
    points = np.array([[0, 0, 1], [0.01, 0, 1], [0, 0.01, 1], [1, 1, 0], [1, 1, 0.01], [0.5, 5, 5]])
    assert largest_cluster(points).tolist() == [True, True, True, False, False, False]
    assert largest_cluster(points[:1]).tolist() == [True]


def test_dnc_leaves_out_who_stands_out() -> None:
    rows = honest(3)
    rows[[2, 7]] += 3
    result = aggregated(votes_of(rows), "dnc", faulty=2)
    assert accepted(result) == [agent for agent in range(1, 13) if agent not in (3, 8)]


def test_clipping_by_hand() -> None:
    votes = votes_of([[3, 4], [0, 1], [0, 0], [6, 8], [0, 2]])
    static = mixed(votes, "clipping", length=2.5)
    assert static.matrix.tolist() == [[1.5, 2], [0, 1], [0, 0], [1.5, 2], [0, 2]]
    assert (static.shares.tolist(), static.figures) == (np.eye(5).tolist(), {"clipping-length": 2.5, "clipped": 2.0})
    # ⌊2 · (1/5) · 4⌋ = 1 is shortened to the next length, 5; with f = 2, ⌊2 · (2/5) · 3⌋ = 2 to 2.
    assert mixed(votes, "arc", faulty=1).matrix.tolist() == [[3, 4], [0, 1], [0, 0], [3, 4], [0, 2]]
    np.testing.assert_allclose(mixed(votes, "arc", faulty=2).matrix[[0, 3]], [[1.2, 1.6], [1.2, 1.6]], rtol=1e-6)
    assert mixed(votes, "arc", faulty=0).matrix.tolist() == votes.matrix.tolist()
    assert mixed(votes_of([[3, 4]], K=9), "arc").matrix.tolist() == [[3, 4]]


def test_buckets_follow_from_the_round_alone() -> None:
    rows = honest(1, 7)
    one, again, other = (mixed(votes_of(rows, number=number), "bucketing", size=3) for number in (4, 4, 5))
    assert one.shares.tolist() == again.shares.tolist() != other.shares.tolist()
    assert sorted((one.shares > 0).sum(axis=1).tolist()) == [1, 3, 3]
    assert ((one.shares > 0).sum(axis=0) == 1).all()
    np.testing.assert_allclose(one.shares @ rows, one.matrix, rtol=1e-5, atol=1e-6)
