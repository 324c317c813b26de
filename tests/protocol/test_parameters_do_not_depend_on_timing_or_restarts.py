"""One seed, one sequence of parameters: whatever the order of answers, repeated messages, and a killed server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_client.calls import FederationCalls
from fedpg_client.process import AgentOptions, AgentProcess
from fedpg_common.bootstrap import use_one_thread
from fedpg_common.descriptions import describe, federation_to_toml
from fedpg_common.errors import ExitCode, StorageError
from fedpg_common.federation import Federation
from fedpg_server.server import ServerOptions, serve
from fedpg_server.storage.store import STORE_NAME, Store
from support.protocol import CALL_TIMEOUT_S, wait_until

K = 3
FEDERATION = describe("CartPole-v1", agents=K, byzantine=1, trajectories=80, seed=11)
HELD_ROUND = 3
"""The round in whose middle servers are stopped."""


def digests(folder: Path) -> list[str]:
    """The parameter digest of every improved round."""
    store = Store.read(folder / STORE_NAME)
    try:
        return [record.parameters_digest for record in store.records()]
    finally:
        store.close()


def votes_of(folder: Path, round_number: int) -> set[int]:
    """Who has a stored vote in a round; nobody while there is no store."""
    try:
        store = Store.read(folder / STORE_NAME)
    except StorageError:
        return set()
    try:
        return {agent for agent in range(1, K + 1) if store.vote_digest(round_number, agent) is not None}
    finally:
        store.close()


@contextmanager
def agents_at(address: str) -> Iterator[Future[ExitCode]]:
    """All agents as threads of this process; they are stopped if the test ends before the run."""
    options = [AgentOptions(index, address, FEDERATION.byzantine.get(index)) for index in range(1, K + 1)]
    process = AgentProcess(options)
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(process.run)
        finally:
            process.stop.set()


def serve_once(folder: Path, federation: Federation | None, address: str, on_bound: Callable[[str], None]) -> ExitCode:
    """A server's life in this thread, to the end of the run or to a signal."""
    options = ServerOptions(folder, address, federation, observers=())
    return asyncio.run(serve(options, on_bound))


def run_to_the_end(folder: Path) -> list[str]:
    """An undisturbed server in this process, with agents that come as soon as it listens."""
    use_one_thread()
    addresses: Future[str] = Future()
    outcome: list[ExitCode] = []

    def bring_agents() -> None:
        with agents_at(addresses.result(CALL_TIMEOUT_S)) as done:
            outcome.append(done.result())

    agents = threading.Thread(target=bring_agents)
    agents.start()
    assert serve_once(folder, FEDERATION, "127.0.0.1:0", addresses.set_result) is ExitCode.OK
    agents.join()
    assert outcome == [ExitCode.OK]
    return digests(folder)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return run_to_the_end(tmp_path_factory.mktemp("reference"))


def test_the_run_is_long_enough_to_tell(reference: list[str]) -> None:
    assert len(reference) > HELD_ROUND
    assert len(set(reference)) == len(reference)


def test_the_same_again(tmp_path: Path, reference: list[str]) -> None:
    assert run_to_the_end(tmp_path) == reference


class OneAfterTheOther(FederationCalls):
    """Agents submit in descending order of their index: each waits for the answer to the one before it."""

    answered: tuple[tuple[int, int], ...] = ()
    turn = threading.Condition()

    def submit(self, round_: pb.Round, gradient: pb.Tensor, report: pb.WorkReport) -> pb.SubmitUpdateReply:
        cls = OneAfterTheOther
        before = (round_.number, self._agent + 1)
        with cls.turn:
            assert cls.turn.wait_for(lambda: self._agent == K or before in cls.answered, CALL_TIMEOUT_S)
        reply = super().submit(round_, gradient, report)
        with cls.turn:
            cls.answered += ((round_.number, self._agent),)
            cls.turn.notify_all()
        return reply


def test_agents_that_answer_in_another_order(
    tmp_path: Path, reference: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpg_client.process.FederationCalls", OneAfterTheOther)
    assert run_to_the_end(tmp_path) == reference
    rounds = range(1, len(reference) + 1)
    assert OneAfterTheOther.answered == tuple((number, agent) for number in rounds for agent in range(K, 0, -1))


class SayingEverythingTwice(FederationCalls):
    """As on a network that loses the answers: each round is fetched and each gradient is submitted twice."""

    def await_round(self, after_round: int) -> pb.AwaitRoundReply:
        super().await_round(after_round)
        return super().await_round(after_round)

    def submit(self, round_: pb.Round, gradient: pb.Tensor, report: pb.WorkReport) -> pb.SubmitUpdateReply:
        super().submit(round_, gradient, report)
        reply = super().submit(round_, gradient, report)
        assert reply.verdict == pb.VERDICT_DUPLICATE
        return reply


def test_answers_that_are_lost_and_calls_that_are_repeated(
    tmp_path: Path, reference: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpg_client.process.FederationCalls", SayingEverythingTwice)
    assert run_to_the_end(tmp_path) == reference


class HoldingBack(FederationCalls):
    """Agent 1 holds its vote of one round back until it is told."""

    released = threading.Event()

    def submit(self, round_: pb.Round, gradient: pb.Tensor, report: pb.WorkReport) -> pb.SubmitUpdateReply:
        if self._agent == 1 and round_.number == HELD_ROUND:
            assert HoldingBack.released.wait(2 * CALL_TIMEOUT_S)
        return super().submit(round_, gradient, report)


@pytest.fixture
def holding_back(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    HoldingBack.released.clear()
    monkeypatch.setattr("fedpg_client.process.FederationCalls", HoldingBack)
    return HoldingBack.released


def until_all_others_voted(folder: Path) -> None:
    wait_until(lambda: votes_of(folder, HELD_ROUND) == set(range(2, K + 1)), 2 * CALL_TIMEOUT_S)
    assert len(digests(folder)) == HELD_ROUND - 1


def test_a_server_that_is_told_to_stop_and_resumed(
    tmp_path: Path, reference: list[str], holding_back: threading.Event
) -> None:
    use_one_thread()
    addresses: Future[str] = Future()
    outcome: list[ExitCode] = []

    def bring_agents_and_stop_the_server() -> None:
        with agents_at(addresses.result(CALL_TIMEOUT_S)) as done:
            until_all_others_voted(tmp_path)
            os.kill(os.getpid(), signal.SIGTERM)
            outcome.append(done.result())

    agents = threading.Thread(target=bring_agents_and_stop_the_server)
    agents.start()
    assert serve_once(tmp_path, FEDERATION, "127.0.0.1:0", addresses.set_result) is ExitCode.TERMINATED
    holding_back.set()
    assert serve_once(tmp_path, None, addresses.result(), lambda _: None) is ExitCode.OK
    agents.join()
    assert outcome == [ExitCode.OK], "the agents never noticed"
    assert digests(tmp_path) == reference


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def server_process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`fedpg-server` as a process."""
    command = [sys.executable, "-c", "from fedpg_server.cli import main; main()", "--no-tensorboard", *arguments]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_server_that_is_killed_in_the_middle_of_a_round_and_resumed(
    tmp_path: Path, reference: list[str], holding_back: threading.Event
) -> None:
    description, folder, address = tmp_path / "federation.toml", tmp_path / "run", free_address()
    description.write_text(federation_to_toml(FEDERATION), encoding="utf-8")
    place = ("--out", str(folder), "--listen", address)
    with agents_at(address) as agents:
        with server_process(*place, "--federation", str(description)) as server:
            until_all_others_voted(folder)
            server.send_signal(signal.SIGKILL)
            assert server.wait(CALL_TIMEOUT_S) == -signal.SIGKILL
        holding_back.set()
        with server_process(*place, "--resume") as server:
            assert agents.result(2 * CALL_TIMEOUT_S) is ExitCode.OK, "the agents never noticed"
            assert server.wait(CALL_TIMEOUT_S) == ExitCode.OK
    assert digests(folder) == reference
