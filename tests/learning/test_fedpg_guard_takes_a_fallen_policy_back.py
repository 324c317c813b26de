"""FedPG-Guard rejects a policy that earns much less, takes a fallen one back, and lets a confirmed ascent pass."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from fedpg_common.learning.parameters import Vector
from fedpg_server.learning.algorithms.defence.ascent import is_confirmed, learn_ascent
from fedpg_server.learning.algorithms.defence.memory import from_count, to_count, to_vector
from fedpg_server.learning.algorithms.defence.returns import Returns
from fedpg_server.learning.learner import RoundResult
from fedpg_server.learning.state import ADAM_M, ADAM_V, ALGORITHM, THETA, State
from hypothesis import given
from hypothesis import strategies as st
from support.guarded import GUARDED_TASK, ROUND, Bench, marks, with_memory

TASK = GUARDED_TASK


def judged(bench: Bench, level: float, rejections: int = 0, **settings: Any) -> tuple[State, RoundResult]:
    """A round at whose end a policy of about 9 is measured against returns of `level`, and the state before it."""
    learner = bench.learner(**settings)
    state = with_memory(learner.initial_state(), **marks([level] * 12, best=level, rejections=rejections))
    best = {
        "returns/best/theta": 0.5 * state.theta,
        "returns/best/adam/m": np.ones_like(state.theta),
        "returns/best/adam/v": np.ones_like(state.theta),
        "returns/best-steps": to_vector(from_count(77)),
    }
    state = state.with_memory(ALGORITHM, {**state.memory(ALGORITHM), **best})
    return state, learner.improve(state, ROUND, bench.updates(4))


def test_a_much_worse_policy_is_rejected(bench: Bench) -> None:
    state, result = judged(bench, level=55.0)
    assert (result.inner.figures["rejected"], result.inner.figures["rolled-back"]) == (1.0, 0.0)
    assert result.state.steps == state.steps
    for name in (THETA, ADAM_M, ADAM_V):
        assert result.state.vectors[name].tobytes() == state.vectors[name].tobytes()
    assert result.aggregate.memory, "what the round taught about the agents stays"
    _, let_pass = judged(bench, level=55.0, guard=False)
    assert let_pass.state.theta.tobytes() != state.theta.tobytes()


def test_a_usual_policy_passes(bench: Bench) -> None:
    state, result = judged(bench, level=9.5)
    assert result.inner.figures["rejected"] == 0.0
    assert result.state.theta.tobytes() != state.theta.tobytes()


def test_after_three_rejections_the_server_goes_on_alone_from_the_best_state(bench: Bench) -> None:
    state, result = judged(bench, level=55.0, rejections=2)
    assert (result.inner.figures["rejected"], result.inner.figures["rolled-back"]) == (1.0, 1.0)
    # Its four steps do not help so much, either: the best state itself is left.
    assert result.state.theta.tobytes() == (0.5 * state.theta).tobytes()
    assert result.state.steps == 77
    assert result.inner.judged.trajectories == 20
    assert Returns.from_memory(result.state.memory(ALGORITHM)).marks.rejections == 0


def test_a_policy_is_not_held_to_greedy_returns_while_the_server_confirms_the_ascent(bench: Bench) -> None:
    learner = bench.learner()
    state = with_memory(learner.initial_state(), **marks([55.0] * 12, best=55.0))
    plan = dataclasses.replace(ROUND, inner_steps=8)
    own = with_memory(state, ascent=[40.0, 40.0, 5.0, 2.8])
    against = with_memory(state, ascent=[-40.0, 40.0, 5.0, 2.8])
    updates = bench.updates(4)
    confirmed = learner.improve(own, plan, updates)
    assert confirmed.inner.figures["ascent"] > 1.64
    assert confirmed.inner.figures["rejected"] == 0.0
    assert learner.improve(against, plan, updates).inner.figures["rejected"] == 1.0


def accepted(values: list[float], sampled: list[float] | None = None) -> Returns:
    """Returns after these rounds."""
    returns = Returns()
    for place, value in enumerate(values):
        state = State({name: np.full(3, place, np.float32) for name in (THETA, ADAM_M, ADAM_V)}, place)
        returns = returns.accept(value, value if sampled is None else sampled[place], state)
    return returns


def test_the_guard_is_armed_when_returns_first_become_steady() -> None:
    climbing = accepted([10.0 * place for place in range(15)])
    assert not climbing.marks.is_armed
    assert climbing.approves(np.zeros(10)), "while it learns, nothing is rejected"
    assert not accepted([10.0] * 20).marks.is_armed, "what does not learn is steady, too"
    steady = accepted([9.0, *[490.0] * 10])
    assert steady.marks.is_armed
    assert not steady.approves(np.full(10, 400.0))
    assert steady.approves(np.full(10, 470.0)), "within 5 % of the progress"


def test_a_slow_fall_is_taken_back_to_the_best_state() -> None:
    steady = accepted([9.0, *[490.0] * 12])
    assert not steady.is_sagging
    sagging = accepted([9.0, *[490.0] * 12, *[460.0] * 3])
    assert sagging.is_sagging
    assert sagging.best is not None
    assert sagging.best.steps == 12, "the median of ten is still 490, but these three did not earn it"
    again = sagging.taken_back(3)
    assert again.greedy[-2:] == (490.0, 490.0)
    assert not again.is_sagging


def test_a_run_that_lost_half_of_its_progress_is_taken_back() -> None:
    down = [490.0 - 20 * place for place in range(25)]
    assert accepted([9.0, *[490.0] * 12, *down]).is_fallen
    assert not accepted([9.0, *[490.0] * 12, *down], sampled=[9.0, *[300.0] * 37]).is_fallen


def test_where_the_ascent_is_confirmed_the_best_state_follows_it() -> None:
    steady = accepted([9.0, *[490.0] * 12])
    climbing = dataclasses.replace(steady, is_climbing=True)
    state = State({name: np.zeros(3, np.float32) for name in (THETA, ADAM_M, ADAM_V)}, 99)
    assert not steady.approves(np.full(10, 300.0))
    assert climbing.approves(np.full(10, 300.0))
    for _ in range(8):
        climbing = climbing.accept(430.0, 430.0, state)
    assert not climbing.is_sagging
    assert climbing.marks.best == climbing.level == 430.0
    assert climbing.best is state
    # What comes after is measured by that.
    later = dataclasses.replace(climbing, is_climbing=False)
    assert later.approves(np.full(10, 430.0))
    assert not later.approves(np.full(10, 300.0))


def confirmations(slopes: list[float]) -> list[bool]:
    """Of each round, whether it and those before confirm the ascent."""
    memory: dict[str, Vector] = {}
    answers = []
    for slope in slopes:
        errors, memory = learn_ascent(memory, slope)
        answers.append(is_confirmed(errors))
    return answers


def test_an_ascent_is_confirmed_by_several_rounds() -> None:
    assert confirmations([0.5] * 5) == [False, False, True, True, True]
    assert not any(confirmations([-0.5] * 50))
    noise = np.random.default_rng(1).standard_normal(20_000)
    assert 0.02 < np.mean(confirmations(noise.tolist())) < 0.08, "one in twenty, of noise"
    assert np.mean(confirmations((noise + 0.8).tolist())) > 0.6
    turned = confirmations([0.5] * 20 + [-0.5] * 6)
    assert not any(turned[21:]), "two rounds against the gradient are enough to take the confirmation away"
    faded = confirmations([0.5] * 20 + [0.0] * 10)
    assert faded[20:26] == [True] * 5 + [False]
    assert not any(confirmations([0.0] * 5))


@given(st.lists(st.floats(-1e4, 1e4, width=32), max_size=40))
def test_what_is_known_of_returns_survives_as_vectors(values: list[float]) -> None:
    returns = accepted(values)
    again = Returns.from_memory(returns.to_memory()) if values else returns
    assert (again.greedy, again.sampled) == (returns.greedy, returns.sampled)
    assert (again.best is None) == (returns.best is None)
    assert again.to_memory().keys() == returns.to_memory().keys()
    for name, vector in again.to_memory().items():
        np.testing.assert_array_equal(vector, returns.to_memory()[name])


@given(st.integers(0, 2**44 - 1))
def test_counts_survive_as_float32(count: int) -> None:
    assert to_count(*to_vector(from_count(count)).tolist()) == count
