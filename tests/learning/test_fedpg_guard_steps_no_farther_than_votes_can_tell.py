"""FedPG-Guard measures noise by the server's own batches, bounds μ by it, and steps less where votes are noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pytest
from fedpg_common.learning.parameters import Vector
from fedpg_server.learning.algorithms.defence.gate import learn_signal, rate_factor
from fedpg_server.learning.algorithms.defence.memory import to_vector
from fedpg_server.learning.algorithms.defence.server_scale import known_scale, learn_scale
from hypothesis import given
from hypothesis import strategies as st
from support.guarded import GUARDED_TASK, ROUND, Bench, marks, with_memory

TASK = GUARDED_TASK


def test_the_scale_is_that_of_the_scatter_of_the_servers_batches() -> None:
    rng = np.random.default_rng(0)
    memory: Mapping[str, Vector] = {}
    for number in range(200):
        batches = 0.06 / math.sqrt(4) * rng.standard_normal((4, 300)).astype(np.float32) / math.sqrt(300)
        memory = learn_scale(memory, list(batches))
        known = known_scale(memory, mini_batch=4, batch=16)
        if number < 2:
            assert known is None, "three degrees of freedom a round, of which six are needed"
        elif number > 20:
            assert known == pytest.approx(0.06 / math.sqrt(16), rel=0.1)
    assert learn_scale(memory, [])["scale"].tolist() == pytest.approx((0.9 * memory["scale"]).tolist())


def test_mu_is_at_most_two_and_a_half_scales_long(bench: Bench) -> None:
    """With a captured majority. Where the server's scale is not known there is no bound."""
    start = bench.learner().initial_state()
    known = with_memory(start, scale=[8 * 0.01**2, 8.0])
    longest = 2.5 * 0.01 * math.sqrt(TASK.mini_batch_size / ROUND.batch_size)
    far = {agent: row + np.float32(0.5) for agent, row in bench.updates(1).items()}
    for state, setting, is_bounded in ((known, True, 1.0), (start, True, None), (known, False, None)):
        result = bench.learner(bound=setting).improve(state, ROUND, far)
        assert result.inner.figures.get("bounded") == is_bounded
    bounded = bench.learner().improve(known, dataclasses.replace(ROUND, inner_steps=1), far)
    # The only inner step is made at θ_0, where v = μ.
    np.testing.assert_allclose(bounded.inner.gradient_norms[0], longest, rtol=1e-4)


@given(st.lists(st.tuples(st.floats(0, 1e70), st.floats(0, 1e70)), min_size=1, max_size=8))
def test_the_gate_is_between_shut_and_open(rounds: list[tuple[float, float]]) -> None:
    memory: Mapping[str, Vector] = {}
    for square, noise in rounds:
        kappa, memory = learn_signal(memory, square, noise)
        assert 0 <= kappa <= 1
        assert 0 <= rate_factor(kappa) <= 1
        assert np.isfinite(memory["gate"]).all()


def test_the_gate_knows_signal_from_noise() -> None:
    assert learn_signal({}, 1.0, 0.25)[0] == 0.75
    assert learn_signal({}, 1.0, 2.0)[0] == 0.0
    assert learn_signal({"gate": to_vector([10.0, 5.0])}, 2.0, 1.0)[0] == pytest.approx(0.5)
    assert [rate_factor(kappa) for kappa in (0.0, 0.1, 0.5)] == pytest.approx([0.0, 0.3, 1.0])


def test_the_gate_lowers_the_learning_rate_only_where_returns_are_steady(bench: Bench) -> None:
    state = bench.learner().initial_state()
    steady = with_memory(state, gate=[1.0, 1.0], **marks(greedy=[50.0] * 12))
    restless = with_memory(state, gate=[1.0, 1.0], **marks(greedy=[50.0, 10.0] * 6))
    weak = {agent: np.float32(1e-3) * row for agent, row in bench.updates(1).items()}
    assert bench.learner(gate=True).improve(steady, ROUND, weak).learning_rate < 0.1 * TASK.learning_rate
    assert bench.learner(gate=True).improve(restless, ROUND, weak).learning_rate == TASK.learning_rate


def test_on_a_plateau_the_learning_rate_remains_the_tasks(bench: Bench) -> None:
    """Steady returns and votes that are nearly all noise: what is learnt until then need not be all there is."""
    plateau = with_memory(bench.learner().initial_state(), gate=[1.0, 1.0], **marks(greedy=[50.0] * 12))
    weak = {agent: np.float32(1e-3) * row for agent, row in bench.updates(1).items()}
    result = bench.learner().improve(plateau, ROUND, weak)
    assert result.inner.figures["gate"] < 0.1
    assert result.learning_rate == TASK.learning_rate
