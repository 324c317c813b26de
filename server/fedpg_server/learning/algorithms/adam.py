"""Adam on a state's named vectors."""

from __future__ import annotations

import math

import numpy as np
from fedpg_common.learning.parameters import Vector

from fedpg_server.learning.state import ADAM_M, ADAM_V, THETA, State

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def fresh(theta: Vector) -> State:
    """θ with Adam's moments at zero."""
    return State({THETA: theta, ADAM_M: np.zeros_like(theta), ADAM_V: np.zeros_like(theta)})


def adam_step(state: State, gradient: Vector, learning_rate: float) -> State | None:
    """One step of Adam (Kingma & Ba 2015) against `gradient` (d,). Changes no input.

    Float32 operations that IEEE 754 rounds, one by one and none of them fused: the result is the same on any processor.
    None where float32 cannot hold it.
    """
    g, steps = gradient, state.steps + 1
    ((rate,), (root_correction,)) = rates_of(state.steps, 1, learning_rate)
    with np.errstate(over="ignore", invalid="ignore"):
        m = state.vectors[ADAM_M] + np.float32(1.0 - BETAS[0]) * (g - state.vectors[ADAM_M])
        v = np.float32(BETAS[1]) * state.vectors[ADAM_V] + np.float32(1.0 - BETAS[1]) * g * g
        theta = state.theta - rate * m / (np.sqrt(v) / root_correction + np.float32(EPSILON))
    vectors = {THETA: theta.astype(np.float32, copy=False), ADAM_M: m, ADAM_V: v}
    if not all(np.isfinite(vector).all() for vector in vectors.values()):
        return None
    return state.with_vectors(vectors, steps)


def rates_of(steps: int, count: int, learning_rate: float) -> tuple[Vector, Vector]:
    """η / (1 − β_1^t) and √(1 − β_2^t) of the `count` steps t that follow the first `steps`, shape (count,) each."""
    numbers = range(steps + 1, steps + 1 + count)
    rates = [learning_rate / (1.0 - BETAS[0] ** t) for t in numbers]
    corrections = [math.sqrt(1.0 - BETAS[1] ** t) for t in numbers]
    return np.array(rates, np.float32), np.array(corrections, np.float32)
