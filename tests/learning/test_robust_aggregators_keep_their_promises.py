"""The robust rules keep what they promise: bounded, equivariant, whoever sent what."""

from __future__ import annotations

import numpy as np
import pytest
from fedpg_common.choices import Choice
from fedpg_common.learning.aggregators import (
    build_aggregator,
)
from fedpg_common.shipped import AGGREGATORS, PRE_AGGREGATORS
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.votes import ROBUST, aggregated, honest, mixed, seeds, vector_of, votes_of


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


def test_the_rules_that_are_tried_here_are_in_the_table() -> None:
    assert set(ROBUST) <= set(AGGREGATORS.shipped)
