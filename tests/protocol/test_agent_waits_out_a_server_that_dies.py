"""An agent waits for a server that dies and comes back, finishes the run with it, and can be stopped at any time."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from fedpg_client.agent import Agent
from fedpg_client.retry import StoppedError
from fedpg_common.federation import Federation
from support.agent_stubs import make_calls, make_stub_worker
from support.protocol import CALL_TIMEOUT_S, Door, idle_federation, serving, wait_until

ROUNDS = 3


def start_agent(threads: ThreadPoolExecutor, index: int, address: str, stop: threading.Event) -> Future[None]:
    """A real agent with a stub of a worker, in a thread."""

    def run() -> None:
        calls = make_calls(index, address, stop)
        try:
            Agent(index, calls, make_stub_worker, time.monotonic).run()
        finally:
            calls.close()

    return threads.submit(run)


async def until_voted(door: Door, agent: int, round_number: int) -> None:
    while door.run.coordinator.members[agent].last_vote_round < round_number:
        await asyncio.sleep(0.005)


def test_a_run_goes_on_after_the_server_was_gone(tmp_path: Path) -> None:
    federation = idle_federation(2, ROUNDS)
    stop = threading.Event()

    async def first_life(threads: ThreadPoolExecutor) -> tuple[str, Future[None]]:
        async with serving(tmp_path, federation) as door:
            agent = start_agent(threads, 1, door.address, stop)
            await until_voted(door, 1, 1)
            return door.address, agent

    async def second_life(threads: ThreadPoolExecutor, address: str) -> list[tuple[int, ...]]:
        async with serving(tmp_path, federation, listen=address) as door:
            late = start_agent(threads, 2, address, stop)
            await asyncio.wrap_future(late)
            assert door.rounds is not None
            await door.rounds
            return [record.accepted for record in door.run.records]

    with ThreadPoolExecutor(2) as threads:
        try:
            address, waiting = asyncio.run(first_life(threads))
            assert not waiting.done(), "the agent is still there while the server is gone"
            accepted = asyncio.run(second_life(threads, address))
            waiting.result(CALL_TIMEOUT_S)
        finally:
            stop.set()
    assert accepted == [(1, 2)] * ROUNDS, "the vote of the first life counts"


def test_an_agent_that_is_there_before_its_server_waits_for_it(tmp_path: Path) -> None:
    federation = idle_federation(1, ROUNDS)
    stop = threading.Event()

    async def find_address() -> str:
        async with serving(tmp_path / "elsewhere", federation) as door:
            return door.address

    async def serve(address: str, agent: Future[None]) -> int:
        async with serving(tmp_path, federation, listen=address) as door:
            await asyncio.wrap_future(agent)
            assert door.rounds is not None
            await door.rounds
            return len(door.run.records)

    (tmp_path / "elsewhere").mkdir()
    with ThreadPoolExecutor(1) as threads:
        try:
            address = asyncio.run(find_address())
            agent = start_agent(threads, 1, address, stop)
            assert asyncio.run(serve(address, agent)) == ROUNDS
        finally:
            stop.set()


@pytest.mark.parametrize("federation", [idle_federation(2, ROUNDS)])
def test_stop_ends_an_agent_in_the_middle_of_a_long_poll(tmp_path: Path, federation: Federation) -> None:
    stop = threading.Event()

    async def serve(threads: ThreadPoolExecutor) -> None:
        async with serving(tmp_path, federation) as door:
            agent = start_agent(threads, 1, door.address, stop)
            await until_voted(door, 1, 1)
            stop.set()
            with pytest.raises(StoppedError):
                await asyncio.wrap_future(agent)
            assert len(door.run.coordinator.votes) == 1
            assert door.run.coordinator.round_number == 1, "the round that it waited for never came"

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(serve(threads))


def test_stop_ends_an_agent_that_waits_for_a_server(tmp_path: Path) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        calls = make_calls(1, "127.0.0.1:1", stop)
        agent = threads.submit(Agent(1, calls, make_stub_worker, time.monotonic).run)
        wait_until(agent.running)
        stop.set()
        with pytest.raises(StoppedError):
            agent.result(CALL_TIMEOUT_S)
        calls.close()
