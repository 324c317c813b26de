"""The robust rules by hand, by plain code, and by what they promise: bounded, equivariant, whoever sent what."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.learning.aggregators import (
    Aggregate,
    Memory,
    Mixed,
    RoundPlan,
    Votes,
    build_aggregator,
    check_federation,
)
from fedpg_common.learning.aggregators.eigen import top_eigenpair
from fedpg_common.learning.aggregators.sign_guard import largest_cluster
from fedpg_common.shipped import AGGREGATORS, PRE_AGGREGATORS
from fedpg_common.tasks import CARTPOLE
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.lab import Command

seeds = st.integers(0, 2**32 - 1)
TASK = dataclasses.replace(CARTPOLE, alpha=0.3)
ROBUST: dict[str, dict[str, Any]] = {
    "median": {}, "trimmed-mean": {}, "meamed": {}, "krum": {}, "multi-krum": {}, "geometric-median": {}, "mda": {},
    "bulyan": {"faulty": 2}, "centered-clipping": {}, "caf": {}, "smea": {}, "monna": {}, "fltrust": {},
    "signguard": {}, "dnc": {},
}  # fmt: skip
"""Rules that promise something, with settings for 12 agents."""


def votes_of(matrix: Any, K: int | None = None, own: list[float] | None = None, number: int = 1) -> Votes:
    """These rows as votes of agents 1, 2, …, and the server's own gradient: the median if it is not given."""
    rows = np.array(matrix, np.float32)
    rows.flags.writeable = False
    trusted = np.median(rows, axis=0) if own is None else np.array(own)
    agents = tuple(range(1, len(rows) + 1))
    return Votes(agents, rows, K or len(rows), RoundPlan(number, 16, 3), TASK, trusted.astype(np.float32))


def aggregated(votes: Votes, name: str, memory: Memory | None = None, **settings: Any) -> Aggregate:
    """What an aggregator of the table makes of votes."""
    return build_aggregator(Choice(name, settings)).aggregate(votes, memory or {})


def mixed(votes: Votes, name: str, **settings: Any) -> Mixed:
    """What a pre-aggregator of the table makes of votes."""
    result: Mixed = PRE_AGGREGATORS.build(Choice(name, settings)).mix(votes)
    return result


def vector_of(result: Aggregate) -> NDArray[np.float64]:
    """μ, which there must be."""
    assert result.vector is not None
    assert result.vector.dtype == np.float32
    return result.vector.astype(np.float64)


def accepted(result: Aggregate) -> list[int]:
    """The agents with a weight."""
    assert result.weights is not None
    return sorted(agent for agent, weight in result.weights.items() if weight)


def honest(seed: int, count: int = 12, size: int = 20) -> NDArray[np.float32]:
    """Votes within about 1 of a vector of length 4 or so."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal(size) + rng.standard_normal((count, size)) / math.sqrt(size)
    return rows.astype(np.float32)


# By hand --------------------------------------------------------------------------------------------------------------


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


# What is promised -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROBUST)
@settings(max_examples=15)
@given(seeds, st.sampled_from([1.0, 1e3, 1e30, 3e38]), st.sampled_from(["together", "apart", "opposite"]))
def test_f_votes_of_any_size_leave_the_result_near_the_honest(name: str, seed: int, size: float, kind: str) -> None:
    # DnC looks along one direction a draw: of huge votes at right angles to each other, one may go unseen.
    assume(name != "dnc" or kind != "apart")
    rows = honest(seed)
    rng = np.random.default_rng(seed + 1)
    faulty = 2 if name == "bulyan" else 3
    bad = rng.permutation(12)[:faulty]
    mean = np.delete(rows, bad, axis=0).mean(axis=0, dtype=np.float64)
    signs = rng.choice([-1.0, 1.0], (faulty, 20))
    if kind != "apart":
        signs = np.outer(np.ones(faulty) if kind == "together" else (-1.0) ** np.arange(faulty), signs[0])
    rows[bad] = (size * signs).astype(np.float32)
    result = aggregated(votes_of(rows, own=mean.tolist()), name, **ROBUST[name])
    away, length = float(np.linalg.norm(vector_of(result) - mean)), float(np.linalg.norm(mean))
    # FLTrust and SignGuard bound lengths, and not directions.
    assert away <= (2 * length if name in ("fltrust", "signguard") else 3)


@pytest.mark.parametrize("name", ROBUST)
@settings(max_examples=15)
@given(seeds)
def test_who_sent_what_does_not_matter(name: str, seed: int) -> None:
    rows = honest(seed)
    rows[:2] *= 3
    order = np.random.default_rng(seed).permutation(12)
    own = rows[5].tolist()
    one = aggregated(votes_of(rows, own=own), name, **ROBUST[name])
    other = aggregated(votes_of(rows[order], own=own), name, **ROBUST[name])
    np.testing.assert_allclose(vector_of(other), vector_of(one), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ROBUST)
@settings(max_examples=15)
@given(seeds, st.floats(-3, 3), st.sampled_from([1 / 8, 0.5, 4.0, 64.0]))
def test_shifts_and_scales_go_through_where_that_is_claimed(name: str, seed: int, shift: float, scale: float) -> None:
    rows = honest(seed)
    rows[:2] *= 3
    claims = getattr(build_aggregator(Choice(name, ROBUST[name])), "equivariant", ())
    before = vector_of(aggregated(votes_of(rows), name, **ROBUST[name]))
    if "shift" in claims:
        after = vector_of(aggregated(votes_of(rows + np.float32(shift)), name, **ROBUST[name]))
        np.testing.assert_allclose(after, before + np.float32(shift), rtol=1e-4, atol=1e-4)
    if "scale" in claims:
        after = vector_of(aggregated(votes_of(rows * np.float32(scale)), name, **ROBUST[name]))
        np.testing.assert_allclose(after, before * scale, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("name", [*ROBUST, *PRE_AGGREGATORS.shipped])
def test_absent_agents_are_no_trouble(name: str) -> None:
    rows = honest(2, 20)
    for present in (1, 2, 3, 5, 6, 7, 12, 20):
        votes = votes_of(rows[:present], K=20)
        if name in ROBUST:
            chosen = {"faulty": 3} if name == "smea" else ROBUST[name]
            result = aggregated(votes, name, **chosen)
            assert result.vector is not None or name in ("dnc", "signguard")
            assert result.vector is None or np.isfinite(result.vector).all()
        else:
            made = mixed(votes, name)
            assert made.matrix.dtype == np.float32
            assert made.shares.shape == (len(made.matrix), present)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "agents", "has_own", "sentence"),
    [
        (Choice("mda"), 60, False, "mda searches subsets without f votes, f at most 16, not 18: set faulty, or take"),
        (Choice("smea"), 30, False, "smea tries all subsets of 21 of 30 votes, at most 30,000, and there are 1.43e+07"),
        (
            Choice("bulyan"),
            10,
            False,
            "4f + 3 agents, which are 15 with f = 3, and there are 10: set faulty to at most",
        ),
        (Choice("monna"), 10, False, "monna trusts the server's own gradient, and the algorithm does not estimate one"),
        (Choice("fltrust", {"after": ["nnm"]}), 10, False, "fltrust trusts the server's own gradient"),
        (Choice("smea", {"after": ["nnm"]}), 30, False, "21 of 30 votes"),
        (Choice("smea", {"after": [{"name": "bucketing", "size": 3}]}), 30, False, ""),
        (Choice("mda", {"faulty": 16}), 1000, False, ""),
        (Choice("bulyan", {"faulty": 1}), 10, False, ""),
        (Choice("fltrust"), 10, True, ""),
        (Choice("krum"), 10, False, ""),
        (Choice("krum", {"faulty": 9}), 10, False, "faulty must be less than half of the 10 agents, not 9"),
    ],
)
def test_what_a_rule_cannot_do_is_said_before_a_run(choice: Choice, agents: int, has_own: bool, sentence: str) -> None:
    aggregator = build_aggregator(choice)
    if not sentence:
        check_federation(aggregator, choice, TASK, agents, has_own)
        return
    with pytest.raises(UsageError) as caught:
        check_federation(aggregator, choice, TASK, agents, has_own)
    assert str(caught.value).startswith(f"aggregator {choice.name}: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_command_that_asks_for_it_ends_before_a_run_folder_is_made(tmp_path: Path, fedpg: Command) -> None:
    for arguments, sentence in (
        (("--aggregator", "smea", "--agents", "30", "--alpha", "0.3"), "smea tries all subsets of 21 of 30 votes"),
        (("--aggregator", "mda", "--agents", "60"), "mda searches subsets without f votes"),
        (("--aggregator", "bulyan", "--byzantine", "2"), "bulyan needs 4f + 3 agents"),
    ):
        code, _, text = fedpg("train", *arguments, "--out", str(tmp_path), "--name", "run")
        assert (code, len(text.splitlines())) == (2, 1), text
        assert sentence in text
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "chosen", "sentence"),
    [
        *[
            (name, {"faulty": -1}, "faulty must be a whole number")
            for name in ("meamed", "mda", "bulyan", "caf", "smea", "monna", "dnc")
        ],
        ("geometric-median", {"steps": 0}, "steps must be a whole number from 1 to 1000, not 0"),
        ("geometric-median", {"smoothing": 0}, "smoothing must be a positive number, not 0"),
        ("centered-clipping", {"radius": -1}, "radius must be a positive number, not -1"),
        ("centered-clipping", {"steps": 1.5}, "steps must be a whole number"),
        ("centered-clipping", {"momentum": 1}, "momentum must be at least 0 and below 1, not 1"),
        ("signguard", {"share": 0}, "share must be above 0 and at most 1, not 0"),
        ("signguard", {"shortest": 2}, "shortest must be from 0 to 1, not 2"),
        ("signguard", {"longest": 0.5}, "longest must be a number of at least 1, not 0.5"),
        ("dnc", {"draws": 0}, "draws must be a whole number from 1 to 100, not 0"),
        ("dnc", {"share": "x"}, "share must be above 0 and at most 1, not 'x'"),
        ("median", {"faulty": 1}, "its settings are none"),
        ("fltrust", {"faulty": 1}, "its settings are batch"),
        (
            "krum",
            {"after": [{"name": "bucketing", "size": 0}]},
            "pre-aggregator bucketing: size must be a whole",
        ),
        ("krum", {"after": [{"name": "clipping", "length": 0}]}, "pre-aggregator clipping: length must be a positive"),
        ("krum", {"after": [{"name": "arc", "faulty": 0.5}]}, "pre-aggregator arc: faulty must be a whole number"),
    ],
)
def test_a_wrong_setting_is_one_sentence(name: str, chosen: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_aggregator(Choice(name, chosen))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_rules_that_are_tried_here_are_in_the_table() -> None:
    assert set(ROBUST) <= set(AGGREGATORS.shipped)
