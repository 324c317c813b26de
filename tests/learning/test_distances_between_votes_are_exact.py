"""Distances between votes are exact however close or large these are, and the same on any number of threads."""

from __future__ import annotations

import math

import numpy as np
import threadpoolctl
import torch
from fedpg_common.learning.aggregators import pairwise_distances
from hypothesis import given
from hypothesis import strategies as st
from support.decisions import aggregate


def test_nearly_equal_large_vectors_do_not_cancel() -> None:
    base = np.full(5000, 1e6, dtype=np.float32)
    near, far = base.copy(), base.copy()
    near[7] = np.nextafter(base[7], np.float32(np.inf))
    far[:2] += 3.0, 4.0
    distances = pairwise_distances(np.stack([base, near, far]))
    assert distances[0].tolist() == [0.0, 0.0625, 5.0]
    result = aggregate({1: base, 2: near, 3: far}, agents=3, sigma=2.0, batch_size=10**4)
    assert (result.rule, result.accepted) == ("R1", (1, 2))


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
