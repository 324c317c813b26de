"""CartPole's compiled inner steps have the same bits with a second thread, which ends with its loop."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.environments import make_environments
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.policies import make_policy
from fedpg_common.tasks import CARTPOLE, Task
from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.algorithms.base import Tools
from fedpg_server.learning.algorithms.inner_loop import variance_reduced_steps

# Rows of a batch from 20 to 2,000: on both sides of where a helper is asked.
TASKS = [
    dataclasses.replace(CARTPOLE, mini_batch_size=count, horizon=horizon)
    for count, horizon in ((1, 500), (4, 128), (11, 60), (25, 500), (64, 9))
]
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")


def make_tools(task: Task, threads: int) -> Tools:
    environments = make_environments(task)
    environments.use_threads(threads)
    policy = make_policy(task, environments.observation_size, environments.action_space)
    return Tools(task, 5, policy, 11, environments)


def rounds(tools: Tools, count: int, scale: float = 0.3) -> str:
    """All of what some rounds come to."""
    d, told = tools.policy.spec.size, []
    for number in range(1, count + 1):
        rng = np.random.default_rng(number)
        state = fresh((scale * rng.standard_normal(d)).astype(np.float32))
        mu = (0.02 * rng.standard_normal(d)).astype(np.float32)
        state, report = variance_reduced_steps(tools, state, RoundPlan(number, 16, 5), mu)
        told += [[vector.tobytes() for vector in state.vectors.values()], dataclasses.asdict(report)]
    return repr(told)


def threads_now() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.mini_batch_size} of {task.horizon}")
@pytest.mark.parametrize("changes", [{}, {"learning_rate": 0.1}], ids=["", "aborted"])
def test_many_batches_have_the_same_bits(task: Task, changes: dict[str, Any]) -> None:
    task = dataclasses.replace(task, **changes)
    alone, helped = make_tools(task, 1), make_tools(task, 2)
    assert rounds(alone, 60) == rounds(helped, 60)


@needs_proc
def test_a_thread_is_made_for_long_batches_alone_and_ends_with_its_loop() -> None:
    before = threads_now()
    for threads, task, made in ((1, TASKS[3], 0), (2, TASKS[4], 1), (2, CARTPOLE, None)):
        tools = make_tools(task, threads)
        short = dataclasses.replace(task, horizon=3)
        rounds(make_tools(short, threads), 2)
        assert threads_now() == before
        rounds(tools, 1)
        if made is not None:
            assert threads_now() == before + made
        del tools
        gc.collect()
        assert threads_now() == before


@needs_proc
def test_many_loops_leave_neither_threads_nor_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])

    before, pages = threads_now(), 0
    for number in range(120):
        rounds(make_tools(TASKS[4], 2), 1)
        gc.collect()
        if number == 20:
            pages = resident()
    assert threads_now() == before
    assert resident() - pages < 2000, "pages of 4 KiB; a loop here has some hundred"


def _in_child(tools: Tools, answer: Any) -> None:
    before = threads_now()  # libraries may have made theirs again
    answer.send((rounds(tools, 3), threads_now() - before))


@needs_proc
def test_a_process_that_was_forked_off_makes_its_own_thread() -> None:
    tools = make_tools(TASKS[4], 2)
    expected = rounds(tools, 3)
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=_in_child, args=(tools, theirs))
    child.start()
    try:
        assert mine.poll(60)
        assert mine.recv() == (expected, 1)
        child.join(60)
        assert child.exitcode == 0
    finally:
        if child.is_alive():
            child.kill()
    assert rounds(tools, 3) == expected
