"""With the baseline "time", an advantage is what sets it apart from the other trajectories' at the same step."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from fedpg_client.worker import Worker
from fedpg_common.descriptions import describe, federation_from_toml, federation_to_toml, with_settings
from fedpg_common.environments import make_environments
from fedpg_common.learning.gradient import advantages, less_the_others
from fedpg_common.learning.policies import make_policy
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import CARTPOLE, Task
from fedpg_common.transport import wire
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

Numbers = list[list[float]]
numbers = st.floats(-1e3, 1e3, width=32)
batches = st.lists(st.lists(numbers, min_size=1, max_size=20), min_size=1, max_size=6)


def flat(rows: Numbers) -> tuple[Trajectories, NDArray[np.float32]]:
    """Trajectories with those rewards, step by step as they are sampled, and the same numbers as values."""
    order = [(t, i) for t in range(max(map(len, rows))) for i, row in enumerate(rows) if t < len(row)]
    values = [rows[i][t] for t, i in order]
    batch = Trajectories(
        observations=np.zeros((len(order), 1), np.float32),
        actions=np.zeros(len(order), np.int64),
        rewards=np.array(values),
        episodes=np.array([i for _, i in order]),
        count=len(rows),
    )
    return batch, np.array(values, np.float32)


def test_by_hand() -> None:
    """At t = 0 three are running, at t = 1 two, and at t = 2 one, which nothing is taken from."""
    batch, values = flat([[1.0, 2.0, 3.0], [4.0, 6.0], [1.0]])
    result = less_the_others(values, batch)
    assert [result[batch.episodes == i].tolist() for i in range(3)] == [[-1.5, -4.0, 3.0], [3.0, 4.0], [-1.5]]


@given(batches)
def test_the_definition(rows: Numbers) -> None:
    """One sum at a time."""
    batch, values = flat(rows)
    result = less_the_others(values, batch)
    assert result.dtype == np.float32
    for i, row in enumerate(rows):
        expected = []
        for t, value in enumerate(row):
            others = [other[t] for j, other in enumerate(rows) if j != i and t < len(other)]
            expected.append(value - (math.fsum(others) / len(others) if others else 0.0))
        assert result[batch.episodes == i].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-4)


@given(st.integers(2, 20), st.integers(1, 300), st.floats(0.0, 1.0), st.floats(-10, 10))
def test_equal_trajectories_say_exactly_nothing(count: int, length: int, gamma: float, reward: float) -> None:
    """What whitening alone blows up to unit variance: a federation of perfect policies has no gradient."""
    batch, _ = flat([[reward] * length] * count)
    assert not advantages(batch, gamma, "time").any()


@given(batches, st.floats(0.0, 1.0))
def test_it_is_taken_from_the_published_advantages(rows: Numbers, gamma: float) -> None:
    """Which remain as they are without it, and for a lone trajectory also with it."""
    batch, _ = flat(rows)
    published = advantages(batch, gamma)
    assert np.array_equal(published, advantages(batch, gamma, "none"))
    assert np.array_equal(advantages(batch, gamma, "time"), less_the_others(published, batch))
    if batch.count == 1:
        assert np.array_equal(advantages(batch, gamma, "time"), published)


def test_it_depends_on_t_and_the_other_trajectories_alone() -> None:
    """So that its expectation changes no gradient: moving one trajectory's values moves its own results as much."""
    rows = [[1.0, 2.0, 3.0], [4.0, 6.0], [1.0, 5.0, 2.0]]
    moved = [[value + 8.0 for value in rows[0]], *rows[1:]]
    before, after = (less_the_others(values, batch) for batch, values in map(flat, (rows, moved)))
    batch, _ = flat(rows)
    assert after[batch.episodes == 0].tolist() == [value + 8.0 for value in before[batch.episodes == 0].tolist()]


def gradient_of(task: Task) -> NDArray[np.float32]:
    """What an agent of this task submits in round 1."""
    environments = make_environments(task)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    theta = policy.initial_parameters(np.random.default_rng(0))
    gradient = Worker(1, 2, 5, task, policy, environments).work(1, 12, theta).gradient
    environments.close()
    return gradient


def test_agents_are_told_and_estimate_accordingly() -> None:
    """The task says so, over the wire, too."""
    timed = dataclasses.replace(CARTPOLE, baseline="time")
    assert wire.task_from_message(wire.task_to_message(timed)) == timed
    assert wire.task_from_message(wire.task_to_message(CARTPOLE)) == CARTPOLE
    published = gradient_of(CARTPOLE)
    assert np.array_equal(gradient_of(dataclasses.replace(CARTPOLE, baseline="none")), published)
    assert not np.allclose(gradient_of(timed), published)


@pytest.mark.parametrize("fields", [{"algorithm": "fedpg-br"}, {"algorithm": "fedpg-guard"}, {"algorithm": "svrpg"}])
def test_it_is_a_setting_of_every_algorithm(fields: dict[str, Any]) -> None:
    """By `--set task.baseline=time`, and it survives its description."""
    given_fields = with_settings({"task": "CartPole-v1", **fields}, ["task.baseline=time"])
    federation = describe(**given_fields)
    assert federation.task.baseline == "time"
    assert federation_from_toml(federation_to_toml(federation), "f.toml") == federation
