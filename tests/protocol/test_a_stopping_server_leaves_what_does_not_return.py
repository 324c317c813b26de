"""A server that is told to stop, or has failed, stores what it has and ends, though its environment does not return."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from failing_environments import failing_task
from fedpg_common.choices import Choice
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode, UsageError
from fedpg_common.federation import Federation
from fedpg_lab.local.processes import LocalFederation
from fedpg_server import server
from fedpg_server.server import ServerOptions, serve
from fedpg_server.storage.store import STORE_NAME, Store
from fedpg_server.threads import LoneThread
from support.hanging_parts import GATE, PATIENCE_S, gated_task
from support.lab import digests, run_federation

WAIT_AT_MOST_S = 300.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The servers of this process wait shortly, for what returns when the test is over."""
    monkeypatch.setattr(server, "STOP_PATIENCE_S", 0.2)
    monkeypatch.setattr(server, "CLOSE_PATIENCE_S", 0.2)
    GATE.reset()
    yield
    GATE.opened.set()


def options_in(folder: Path, method: str, *observers: Choice) -> ServerOptions:
    return ServerOptions(folder, "127.0.0.1:0", Federation(gated_task(method), agents=2), observers=observers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_making_its_environment(tmp_path: Path, number: int) -> None:
    async def play() -> ExitCode:
        served = asyncio.create_task(serve(options_in(tmp_path / "run", "__init__"), lambda _address: None))
        assert await asyncio.to_thread(GATE.reached.wait, PATIENCE_S)
        os.kill(os.getpid(), number)
        return await asyncio.wait_for(served, PATIENCE_S)

    assert asyncio.run(play()) in (ExitCode.INTERRUPTED, ExitCode.TERMINATED)
    assert not GATE.opened.is_set()
    assert not (tmp_path / "run").exists()


def test_one_that_cannot_close_its_environment(tmp_path: Path) -> None:
    """The store is closed by then, and its lock given back."""

    async def play() -> ExitCode:
        bound: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        served = asyncio.create_task(serve(options_in(tmp_path / "run", "close"), bound.set_result))
        await bound
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(served, PATIENCE_S)

    assert asyncio.run(play()) is ExitCode.TERMINATED
    assert GATE.reached.is_set()
    assert not GATE.opened.is_set()
    Store.open(tmp_path / "run" / STORE_NAME).close()


def test_one_that_has_failed_and_cannot_close_its_environment(tmp_path: Path) -> None:
    options = options_in(tmp_path / "run", "close", Choice("checkpoints", {"every_rounds": 0}))
    with pytest.raises(UsageError, match="every_rounds must be"):
        asyncio.run(asyncio.wait_for(serve(options, lambda _address: None), PATIENCE_S))
    assert GATE.reached.is_set()


def stopped_when(processes: LocalFederation, sign: Path) -> int | None:
    """The exit status of a server that is told to stop once there is this file."""
    deadline_s = time.monotonic() + WAIT_AT_MOST_S
    with processes:
        while not sign.exists():
            assert processes.supervise()
            assert time.monotonic() < deadline_s
            processes.wait_for_end(0.05)
    return processes._server.exitcode


def test_one_in_the_middle_of_a_step_loses_nothing(tmp_path: Path) -> None:
    """It ends by itself, and is not killed; resumed, the run has the parameters of one that was not disturbed."""
    calm, claims = tmp_path / "calm", tmp_path / "claims"
    for folder in (calm, claims):
        folder.mkdir()
    (calm / "failed-0").touch()

    def federation(folder: Path) -> Federation:
        return Federation(failing_task(folder, "hang", count=1, where="server"), agents=2)

    hanging = LocalFederation(federation(claims), tmp_path / "hung", observers=())
    assert stopped_when(hanging, claims / "failed-0") == ExitCode.TERMINATED
    assert "what was answered is stored" in hanging.log_path("server").read_text()
    with LocalFederation(federation(claims), tmp_path / "hung", resume=True, observers=()) as resumed:
        while resumed.supervise():
            resumed.wait_for_end(0.05)
    undisturbed = run_federation(federation(calm), tmp_path / "calm-run")
    with Store.read(tmp_path / "hung" / STORE_NAME) as store:
        assert [record.parameters_digest for record in store.records()] == digests(undisturbed)


def test_one_whose_observer_holds_up_all_else(tmp_path: Path) -> None:
    """Observers run where signals are heard, too."""
    sign = tmp_path / "sign"
    looker = Choice("support.hanging_parts:Looker", {"sign": str(sign)})
    processes = LocalFederation(describe("CartPole-v1", agents=2), tmp_path / "run", observers=(looker,))
    assert stopped_when(processes, sign) == ExitCode.TERMINATED
    assert "does not return from the call that it is in" in processes.log_path("server").read_text()


def test_its_thread_does_what_it_is_given_in_order() -> None:
    thread = LoneThread("alone")
    done: list[int] = []
    futures = [thread.submit(done.append, number) for number in range(100)]
    failing = thread.submit(int, "x")
    named = thread.submit(lambda: threading.current_thread().name)
    assert isinstance(failing.exception(PATIENCE_S), ValueError)
    assert named.result(PATIENCE_S) == "alone"
    assert all(future.done() for future in futures)
    assert done == list(range(100))
    waiting = thread.submit(GATE.pass_through)
    unwanted = thread.submit(done.append, -1)
    assert unwanted.cancel()
    GATE.opened.set()
    thread.shutdown()
    assert waiting.done()
    assert done[-1] == 99
