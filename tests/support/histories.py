"""Votes for the aggregator history, round after round, and the weights that it gives them."""

from __future__ import annotations

import dataclasses

import numpy as np
from fedpg_common.learning.aggregators import Aggregate, RoundPlan, Votes
from fedpg_common.tasks import CARTPOLE
from hypothesis import strategies as st
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
seeds = st.integers(0, 2**32 - 1)
K, SIZE = 10, 400


def votes_of(rows: Numbers, scale: float | None = 1.0, agents: tuple[int, ...] = (), size: int = 0) -> Votes:
    """These rows as votes, of all agents unless they are named."""
    matrix = rows.astype(np.float32)
    matrix.flags.writeable = False
    names = agents or tuple(range(1, len(rows) + 1))
    task = dataclasses.replace(CARTPOLE, alpha=0.4)
    return Votes(names, matrix, size or max(names), RoundPlan(1, 16, 3), task, server_scale=scale)


def honest(rng: np.random.Generator, count: int = K, is_lopsided: bool = False) -> Numbers:
    """Votes of noise 1; lopsided: seven tenths of its variance lie in one direction, as policy gradients have it."""
    rows: Numbers = rng.standard_normal((count, SIZE)) / np.sqrt(SIZE)
    if is_lopsided:
        rows *= np.sqrt(0.3)
        rows[:, 1] += np.sqrt(0.7) * rng.standard_normal(count)
    return rows


def weights_of(result: Aggregate) -> Numbers:
    """The voters' weights, in order."""
    assert result.weights is not None
    return np.array(list(result.weights.values()))
