"""The honest votes' noise, from the scatter of the server's own batches: nobody else can touch it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from fedpg_common.learning.parameters import Vector

from fedpg_server.learning.algorithms.defence.memory import Memory, numbers_in, to_vector

FORGET = 0.9
"""What is left of the evidence after a round."""
ENOUGH = 6.0
"""Degrees of freedom from which on the estimate is used."""
NAME = "scale"


def known_scale(memory: Memory, mini_batch: int, batch: int) -> float | None:
    """s_t = √(S/f · b/B_t) of a vote of `batch` trajectories, from batches of `mini_batch`; None if not known yet."""
    scatter, freedom = numbers_in(memory, NAME, 2)
    if freedom < ENOUGH or not scatter > 0:
        return None
    return math.sqrt(scatter / freedom * mini_batch / batch)


def learn_scale(memory: Memory, gradients: Sequence[Vector]) -> dict[str, Vector]:
    """The memory after a round whose batches had these gradients at θ_0: S ← 0.9 S + Σ|g_n − ḡ|², f ← 0.9 f + N − 1."""
    scatter, freedom = (FORGET * number for number in numbers_in(memory, NAME, 2))
    if len(gradients) > 1:
        rows = np.array(gradients, np.float64)
        scatter += float(np.square(rows - rows.mean(axis=0)).sum())
        freedom += len(rows) - 1
    return {NAME: to_vector([scatter, freedom])}
