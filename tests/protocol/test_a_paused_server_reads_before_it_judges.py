"""A server that stood still reads what has arrived meanwhile before it judges who is late."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import UnreachableError
from fedpg_lab.local.processes import LocalFederation
from fedpg_lab.local.status import fetch_status
from fedpg_lab.runs.folders import load_run
from fedpg_server.protocol.coordinator import Phase
from fedpg_server.protocol.events import Tick
from fedpg_server.storage.store import Store
from support.coordinator_driver import QUORUM, ROUND_TIMEOUT_S, Driver, K
from support.protocol import idle_federation, make_submission, serving
from support.simulated_faults import Schedule, Trouble
from support.simulated_federation import simulate
from support.simulation_history import check


def collecting(votes: int) -> Driver:
    driver = Driver()
    driver.open(1)
    for agent in range(1, votes + 1):
        driver.submit(agent, 1)
    return driver


@pytest.mark.parametrize("votes", [0, QUORUM, K - 1])
@pytest.mark.parametrize("overshoot_s", [0.3, 6.0, 3600.0])
def test_a_deadline_that_passed_while_it_stood_still_is_moved(votes: int, overshoot_s: float) -> None:
    driver = collecting(votes)
    driver.pass_time(ROUND_TIMEOUT_S + overshoot_s)
    assert not driver.closed
    assert driver.coordinator.phase is Phase.COLLECTING
    extension_s = driver.coordinator.deadline_s - driver.now_s
    assert 0.0 < extension_s <= min(overshoot_s, ROUND_TIMEOUT_S), (
        "by no more than it was late, nor than a round's time"
    )
    assert driver.wake_at_s == driver.coordinator.deadline_s
    for agent in range(votes + 1, K + 1):
        driver.submit(agent, 1)
    assert driver.closed == {1: (1, 2, 3, 4, 5)}, "what had arrived counts"


def test_a_vote_that_is_read_before_the_timer_fires_does_not_close_the_round_on_the_others() -> None:
    driver = collecting(QUORUM - 1)
    driver.now_s += ROUND_TIMEOUT_S + 6.0
    driver.submit(QUORUM, 1)
    assert not driver.closed
    for agent in range(QUORUM + 1, K + 1):
        driver.submit(agent, 1)
    assert driver.closed == {1: (1, 2, 3, 4, 5)}


def test_the_time_it_gives_is_bounded() -> None:
    driver = collecting(QUORUM)
    driver.pass_time(ROUND_TIMEOUT_S + 6.0)
    driver.pass_time(6.0)
    assert driver.closed == {1: (1, 2, 3)}


def test_a_timer_that_is_a_little_late_is_on_time() -> None:
    driver = collecting(QUORUM)
    driver.now_s = ROUND_TIMEOUT_S + 0.1
    driver.step(Tick())
    assert driver.closed


@pytest.mark.parametrize("at_s", [3.0, 3.5, 4.0, 4.5, 5.0])
def test_a_simulated_server_that_pauses_for_longer_than_a_round_lasts(tmp_path: Path, at_s: float) -> None:
    """Its timers and what reaches it are held meanwhile; the timer of the round fires first when it goes on."""
    pause = Trouble("pause", ("server",), at_s=at_s, for_s=20.0)
    simulation = simulate(Schedule(seed=1, agents=4, rounds=4, round_timeout_s=12.0, troubles=(pause,)), tmp_path)
    assert check(simulation) == []
    store = Store.read(simulation.path)
    try:
        assert {record.absent for record in store.records()} == {()}
    finally:
        store.close()


def test_an_event_loop_that_was_blocked_counts_the_votes_on_their_way(tmp_path: Path) -> None:
    """The loop is blocked for longer than the round lasts, with a vote of the last agent in its socket."""

    async def play() -> tuple[int, ...]:
        async with serving(tmp_path, idle_federation(3, 1, round_timeout_s=1.0)) as door:
            rounds = [await door.open_round(agent, 0) for agent in (1, 2, 3)]
            await door.vote(1, rounds[0])
            await door.vote(2, rounds[1])
            late = asyncio.ensure_future(door.submit(make_submission(door.run.run_id, 3, rounds[2])))
            await asyncio.sleep(0)
            time.sleep(2.0)
            await late
            (record,) = await door.finish()
            return record.accepted

    assert asyncio.run(play()) == (1, 2, 3)


def test_a_real_server_that_is_stopped_and_continued_loses_no_vote(tmp_path: Path) -> None:
    """SIGSTOP for twice the round's time, again and again; every round has every vote."""
    federation = describe("CartPole-v1", agents=3, trajectories=4000, round_timeout_s=1.0)
    with LocalFederation(federation, tmp_path / "run", observers=()) as processes:

        def rounds() -> int:
            """How many are over; 0 until the server has restored the run."""
            with suppress(UnreachableError):
                return fetch_status(processes.address, None, 30.0).latest.round
            return 0

        while rounds() == 0:
            assert processes.supervise()
        for _ in range(3):
            os.kill(processes.server_pid, signal.SIGSTOP)
            threading.Event().wait(2.0)
            os.kill(processes.server_pid, signal.SIGCONT)
            before = rounds()
            while processes.supervise() and rounds() < before + 2:
                time.sleep(0.01)
        while processes.supervise():
            time.sleep(0.05)
    run = load_run(tmp_path / "run")
    assert run.is_complete
    assert {record.absent for record in run.records} == {()}
