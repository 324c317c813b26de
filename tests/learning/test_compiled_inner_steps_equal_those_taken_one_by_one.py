"""The compiled inner loop of CartPole has the bits of the plain one: state, report, and what those who watch it see."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import pytest
from fedpg_common.environments import make_environments
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.kernels import inner_loop as compiled
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import make_policy
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import CARTPOLE, Reward, Task
from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.algorithms.base import InnerReport, Tools
from fedpg_server.learning.algorithms.inner_loop import variance_reduced_steps
from fedpg_server.learning.state import ADAM_M, ADAM_V, State
from hypothesis import example, given
from hypothesis import strategies as st

Seen = list[tuple[Trajectories, Vector]]


def make_tools(task: Task, seed: int, *, is_compiled: bool = True) -> Tools:
    """A server's tools."""
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    tools = Tools(task, 5, policy, seed, environments)
    if not is_compiled:
        with patch.object(compiled, "load", lambda: None):
            assert tools.compiled_loop is None  # and is remembered
    else:
        assert tools.compiled_loop is not None
    return tools


def draw_state(tools: Tools, seed: int, scale: float, steps: int) -> State:
    """A state in the middle of a run."""
    rng, d = np.random.default_rng(seed), tools.policy.spec.size
    theta = (scale * rng.standard_normal(d)).astype(np.float32)
    moments = {
        ADAM_M: (0.01 * rng.standard_normal(d)).astype(np.float32),
        ADAM_V: (1e-4 * rng.random(d)).astype(np.float32),
        "algorithm/memory": np.ones(3, np.float32),
    }
    return dataclasses.replace(fresh(theta).with_vectors(moments), steps=steps)


def bits(state: State, report: InnerReport) -> dict[str, Any]:
    """All of a result, each float as its bits."""
    vectors = {name: vector.tobytes() for name, vector in state.vectors.items()}
    return vectors | dataclasses.asdict(report) | {"steps": state.steps}


def assert_same(task: Task, seed: int, state_of: Any, plan: RoundPlan, mu: Any, **options: Any) -> InnerReport:
    """Both loops from the same state; returns the report."""
    overflow: Literal["raise", "ignore"] = "raise" if options.pop("warns_of_nothing", True) else "ignore"
    results, watched = [], []
    for is_compiled in (True, False):
        tools, seen = make_tools(task, seed, is_compiled=is_compiled), Seen()
        vector = None if mu is None else mu(tools)
        watch = (lambda *what, seen=seen: seen.append(what)) if options.get("watched") else None
        kept = {name: value for name, value in options.items() if name != "watched"}
        with np.errstate(over=overflow, invalid=overflow, divide=overflow):
            results.append(variance_reduced_steps(tools, state_of(tools), plan, vector, watch=watch, **kept))
        watched.append(seen)
    (mine, report), (theirs, expected) = results
    assert repr(bits(mine, report)) == repr(bits(theirs, expected))
    for (batch, gradient), (other, their_gradient) in zip(*watched, strict=True):
        assert gradient.tobytes() == their_gradient.tobytes()
        for name in ("observations", "actions", "rewards", "episodes"):
            one, two = getattr(batch, name), getattr(other, name)
            assert (one.dtype, one.tobytes()) == (two.dtype, two.tobytes()), name
        assert batch.count == other.count
    return report


@given(
    seed=st.integers(0, 2**63 - 1),
    hidden=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    activation=st.sampled_from(["relu", "tanh"]),
    episodes=st.integers(1, 20),
    horizon=st.integers(1, 90),
    gamma=st.floats(0.5, 1.0),
    baseline=st.sampled_from(["", "time"]),
    steps=st.integers(1, 20),
    scale=st.sampled_from([0.01, 0.3, 3.0]),
    rate=st.sampled_from([1e-6, 1e-3, 0.3]),
    has_mu=st.booleans(),
    watched=st.booleans(),
)
@example(1, (16, 16), "relu", 4, 500, 0.999, "", 5, 0.3, 1e-4, True, False)
def test_any_round_of_any_small_task_has_the_same_bits(
    seed: int, hidden: tuple[int, ...], activation: str, episodes: int, horizon: int, gamma: float, baseline: str,
    steps: int, scale: float, rate: float, has_mu: bool, watched: bool,
) -> None:  # fmt: skip
    task = dataclasses.replace(
        CARTPOLE, hidden=hidden, activation=activation, mini_batch_size=episodes, horizon=horizon, gamma=gamma,
        baseline=baseline, learning_rate=rate, environment_options={"gravity": 9.8 + seed % 3},
    )  # fmt: skip
    number = seed % 1000

    def mu(tools: Tools) -> Vector:
        return (0.02 * np.random.default_rng(number).standard_normal(tools.policy.spec.size)).astype(np.float32)

    assert_same(
        task, seed, lambda tools: draw_state(tools, number, scale, number), RoundPlan(number, 16, steps),
        mu if has_mu else None, watched=watched, first_step=1 + number, learning_rate=None if seed % 2 else 2 * rate,
    )  # fmt: skip


@pytest.mark.parametrize("huge", [1e25, 3e38, -3e38])
def test_steps_that_float32_cannot_hold_are_left_out_alike(huge: float) -> None:
    report = assert_same(
        CARTPOLE, 3, lambda tools: draw_state(tools, 1, 0.3, 2), RoundPlan(2, 16, 3),
        lambda tools: np.full(tools.policy.spec.size, huge, np.float32), watched=True,
    )  # fmt: skip
    assert report.skipped_steps == 3


@pytest.mark.parametrize("size", [1e19, 1e30, 1e38])
def test_parameters_at_the_edge_of_float32_have_the_same_bits(size: float) -> None:
    """Logits that overflow, or are not numbers; ratios that are infinite."""

    def extreme(tools: Tools) -> State:
        signs = np.random.default_rng(4).choice([-1.0, 1.0], tools.policy.spec.size)
        return fresh((size * signs).astype(np.float32))

    with np.errstate(all="ignore"):
        for mu in (None, lambda tools: np.zeros(tools.policy.spec.size, np.float32)):
            assert_same(dataclasses.replace(CARTPOLE, horizon=40), 3, extreme, RoundPlan(2, 16, 3), mu, watched=True,
                        warns_of_nothing=False)  # fmt: skip


def test_a_step_that_goes_too_far_drops_the_next_batch_alike() -> None:
    task = dataclasses.replace(CARTPOLE, learning_rate=0.3)
    report = assert_same(
        task, 5, lambda tools: draw_state(tools, 2, 0.3, 0), RoundPlan(2, 16, 40),
        lambda tools: np.full(tools.policy.spec.size, 0.01, np.float32),
    )  # fmt: skip
    assert report.aborted
    assert (len(report.losses), report.steps_taken) == (2, 1)


def test_one_loop_serves_round_after_round() -> None:
    """What a round leaves in it does not show in the next one."""
    tools, plain = (make_tools(CARTPOLE, 1, is_compiled=is_compiled) for is_compiled in (True, False))
    states = [draw_state(tools, 3, 0.2, 0)] * 2
    for number in range(1, 6):
        mu = None if number == 3 else np.full(tools.policy.spec.size, 0.001 * number, np.float32)
        results = [
            variance_reduced_steps(one, state, RoundPlan(number, 16, 17 * number % 20), mu)
            for one, state in zip((tools, plain), states, strict=True)
        ]
        assert repr(bits(*results[0])) == repr(bits(*results[1]))
        states = [state for state, _ in results]


@pytest.mark.parametrize(
    "changes", [{"reward": Reward(scale=2.0)}, {"horizon": 10**6}, {"environment": "Acrobot-v1"}], ids=str
)
def test_whatever_is_not_compiled_is_taken_one_by_one(changes: dict[str, Any]) -> None:
    task = dataclasses.replace(CARTPOLE, **changes)
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    assert Tools(task, 5, policy, 1, environments).compiled_loop is None
    environments.close()
