"""Who signals a process from a thread of its own, as a slow processor does, fetches nobody's exit status.

Multiprocessing reads it from a pipe, once: of two threads that ask at the same moment one finds the pipe empty, and
the process has ended with status 255 for everybody.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from fedpg_common.descriptions import describe
from fedpg_lab.faults.slow_cpu import Brake
from fedpg_lab.local.processes import SERVER, LocalFederation
from support.protocol import wait_until

Sent = list[tuple[int, int]]
PID = 4_000_001


class UnaskedProcess:
    """A process that may be signalled, and not be asked for its exit status."""

    pid = PID

    def __init__(self) -> None:
        self.sentinel, self._ended = os.pipe()

    def end(self) -> None:
        os.close(self._ended)

    def close(self) -> None:
        os.close(self.sentinel)

    def is_alive(self) -> bool:
        raise AssertionError("its exit status is fetched")

    @property
    def exitcode(self) -> int:
        raise AssertionError("its exit status is fetched")


@pytest.fixture
def process() -> Iterator[UnaskedProcess]:
    made = UnaskedProcess()
    yield made
    made.close()


@pytest.fixture
def federation(tmp_path: Path, process: UnaskedProcess) -> LocalFederation:
    made = LocalFederation(describe("CartPole-v1"), tmp_path / "run")
    made._server = cast(Any, process)
    return made


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    found: Sent = []
    monkeypatch.setattr(os, "kill", lambda pid, number: found.append((pid, number)))
    return found


def test_a_signal_goes_out_while_the_process_runs(
    federation: LocalFederation, process: UnaskedProcess, sent: Sent
) -> None:
    federation.send_signal(SERVER, signal.SIGSTOP)
    assert sent == [(PID, signal.SIGSTOP)]
    process.end()
    federation.send_signal(SERVER, signal.SIGCONT)
    assert sent == [(PID, signal.SIGSTOP)]


def test_a_process_that_ends_at_the_same_moment_is_no_error(
    federation: LocalFederation, process: UnaskedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_pid: int, _number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", gone)
    federation.send_signal(SERVER, signal.SIGCONT)
    process.end()


def test_a_brake_stops_and_continues_it(federation: LocalFederation, process: UnaskedProcess, sent: Sent) -> None:
    brake = Brake(lambda number: federation.send_signal(SERVER, number), fraction=0.5)
    wait_until(lambda: len(sent) >= 4)
    brake.release()
    assert [number for _, number in sent[:4]] == [signal.SIGSTOP, signal.SIGCONT] * 2
    assert sent[-1] == (PID, signal.SIGCONT)
    process.end()
