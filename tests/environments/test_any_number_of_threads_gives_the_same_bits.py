"""The episodes of a batch may be shared by threads, where the simulation lets them: nothing but time depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fedpg_client.worker import Worker
from fedpg_common.environments import EnvironmentBatch, make_environments
from fedpg_common.federation import Federation
from fedpg_common.learning.policies import make_policy
from fedpg_common.machine import cores
from fedpg_common.tasks import CARTPOLE, HALF_CHEETAH, LUNAR_LANDER, Task
from fedpg_server.learning.learner import Learner

SMALL = {"horizon": 12, "evaluation_horizon": 15, "batch_size": 5, "batch_size_min": 5, "batch_size_max": 5}
TASKS = [replace(task, **SMALL, mini_batch_size=3) for task in (CARTPOLE, HALF_CHEETAH, LUNAR_LANDER)]  # type: ignore[arg-type]


@pytest.fixture(params=TASKS, ids=lambda task: task.name)
def task(request: pytest.FixtureRequest) -> Task:
    assert isinstance(request.param, Task)
    return request.param


@pytest.fixture
def environments(task: Task) -> Iterator[EnvironmentBatch]:
    environments = make_environments(task)
    yield environments
    environments.close()


def a_round(task: Task, environments: EnvironmentBatch) -> tuple[bytes, bytes, object]:
    """What an agent submits, the server's next θ, and its evaluation."""
    policy = make_policy(task, environments.observation_size, environments.action_space)
    learner = Learner(Federation(task, agents=1, seed=3), environments, policy)
    state = learner.initial_state()
    plan = learner.plan(1)
    update = Worker(1, 1, 7, task, policy, environments).work(1, plan.batch_size, state.theta)
    result = learner.improve(state, plan, {1: update.gradient})
    assert result.inner.sampled.steps + result.inner.dropped.steps > 0
    return update.gradient.tobytes(), result.state.theta.tobytes(), learner.evaluate(result.state.theta, 1)


def test_gradients_parameters_and_evaluations_do_not_depend_on_the_threads(
    task: Task, environments: EnvironmentBatch
) -> None:
    """5, 3 and 10 episodes in 1, 2, 3 and more threads, one number after the other, up and down."""
    alone = a_round(task, environments)
    for count in (2, 3, 7, 1, 2):
        environments.use_threads(count)
        assert a_round(task, environments) == alone, f"{count} threads"


def test_episodes_that_are_dropped_leave_the_others_as_they_are() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 7, 6)).astype(np.float32)

    def play(threads: int) -> list[bytes]:
        environments = make_environments(HALF_CHEETAH)
        environments.use_threads(threads)
        seen = [environments.reset(np.arange(7)).tobytes()]
        live = np.arange(7)
        for step, action in enumerate(actions):
            observations, rewards, _ = environments.step(action[live])
            seen += [observations.tobytes(), rewards.tobytes()]
            stays = live != step
            environments.keep(stays)
            live = live[stays]
        environments.close()
        return seen

    assert play(1) == play(2) == play(3)


def test_a_batch_without_episodes_can_be_stepped_in_threads() -> None:
    environments = make_environments(HALF_CHEETAH)
    environments.use_threads(2)
    assert environments.reset(np.arange(0)).shape == (0, 17)
    environments.step(np.zeros((0, 6), np.float32))
    environments.close()


@pytest.mark.parametrize(("text", "most"), [("max 100000\n", 10**6), ("100000 100000\n", 1), ("50000 100000\n", 1),
                                            ("nonsense", 10**6), ("5 0", 10**6)])  # fmt: skip
def test_a_container_with_a_quota_has_no_more_threads_than_that(tmp_path: Path, text: str, most: int) -> None:
    quota = tmp_path / "cpu.max"
    whole = cores(tmp_path / "nothing")
    quota.write_text(text)
    assert cores(quota) == min(whole, most)
    assert whole >= 1
