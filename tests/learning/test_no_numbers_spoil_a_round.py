"""Whatever numbers are sent, parameters stay finite and learning goes on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fedpg_server.learning.state import ADAM_M, ADAM_V
from support.plain_learning import ROUND, SMALL_TASK, Bench, bits, gradients

TASK = SMALL_TASK
LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("huge", [LARGEST, -LARGEST, 1e25])
@pytest.mark.parametrize("algorithm", ["fedpg-br", "svrpg", "gpomdp"])
def test_a_step_beyond_float32_is_not_taken(bench: Bench, algorithm: str, huge: float) -> None:
    learner, updates = bench.learner(algorithm), gradients(bench.policy)
    updates[1] = np.full(bench.policy.spec.size, huge, dtype=np.float32)
    state = learner.initial_state()
    result = learner.improve(state, ROUND, updates)
    assert all(
        np.isfinite(part).all()
        for part in (result.state.theta, result.state.vectors[ADAM_M], result.state.vectors[ADAM_V])
    )
    assert math.isfinite(result.gradient_norm)
    if algorithm == "fedpg-br":
        assert (result.inner.steps_taken, result.inner.skipped_steps) == (3, 0)
    else:
        assert result.inner.skipped_steps == (1 if algorithm == "gpomdp" else 3)
        assert result.inner.steps_taken == 0
        assert bits(result.state) == bits(state)


def test_after_a_skipped_step_learning_goes_on(bench: Bench) -> None:
    learner, updates = bench.learner("svrpg"), gradients(bench.policy)
    flooded = learner.improve(learner.initial_state(), ROUND, updates | {1: np.full_like(updates[1], LARGEST)})
    after = learner.improve(flooded.state, ROUND, updates)
    assert bits(after.state) == bits(learner.improve(learner.initial_state(), ROUND, updates).state)
