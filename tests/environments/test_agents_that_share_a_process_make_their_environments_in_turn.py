"""MuJoCo has one warning handler for all threads, and aborts the process if it changes while a warning is given."""

from __future__ import annotations

import threading

import mujoco
from fedpg_common.environments.half_cheetah import HalfCheetahBatch
from fedpg_common.environments.mujoco_batch import warnings_logged

AGENTS = 4


def test_the_handler_is_one_threads_at_a_time_and_is_put_back() -> None:
    before = mujoco.get_mju_user_warning()
    entered = threading.Event()

    def make() -> None:
        with warnings_logged():
            entered.set()

    other = threading.Thread(target=make)
    with warnings_logged():
        other.start()
        assert not entered.wait(0.1)
    assert entered.wait(300)
    other.join()
    assert mujoco.get_mju_user_warning() is before


def test_agents_in_one_process_can_all_start_at_once() -> None:
    start = threading.Barrier(AGENTS)
    made: list[HalfCheetahBatch] = []

    def make() -> None:
        start.wait()
        made.append(HalfCheetahBatch())

    agents = [threading.Thread(target=make) for _ in range(AGENTS)]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.join()
    assert len(made) == AGENTS
