"""A real federation goes through every kind of fault, each healed in the end: its parameters are those of the
undisturbed run, bit for bit, round by round.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fedpg_common.descriptions import describe
from fedpg_lab.faults.backend import SERVER, Fault, FaultKind
from fedpg_lab.faults.local_backend import LocalBackend
from fedpg_lab.runs.folders import RunData, load_run
from support.fault_watch import STALLING, Watch
from support.lab import digests, run_federation

FEDERATION = describe("CartPole-v1", agents=3, trajectories=1500, round_timeout_s=1e5)
"""Every round waits for everybody."""

SLOWING = [
    Fault(FaultKind.LATENCY, (1, 2), delay_s=0.03, jitter_s=0.02),
    Fault(FaultKind.BANDWIDTH, (3,), bytes_per_s=200e3),
    Fault(FaultKind.LOSS, (SERVER,), fraction=0.02),
    Fault(FaultKind.CORRUPTION, (2,), fraction=0.05),
    Fault(FaultKind.SLOW_CPU, (1, SERVER), fraction=0.5),
]
"""Faults with which rounds go on."""
OF_THE_SERVER = [Fault(FaultKind.KILL, (SERVER,)), Fault(FaultKind.STOP, (SERVER,)), Fault(FaultKind.PAUSE, (SERVER,))]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return run_federation(FEDERATION, tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch[LocalBackend]]:
    backend = LocalBackend(FEDERATION, tmp_path / "run", seed=0)
    try:
        backend.start()
        watch = Watch(backend)
        watch.rounds(1)
        yield watch
    finally:
        backend.close()


def test_faults_that_no_round_can_do_without(watch: Watch[LocalBackend], undisturbed: RunData, tmp_path: Path) -> None:
    for fault in STALLING:
        watch.backend.apply(fault)
        watch.stands_still_for(fault.targets)
        watch.backend.heal(fault)
        watch.rounds(1)
    watch.to_the_end()
    assert digests(load_run(tmp_path / "run")) == digests(undisturbed)


def test_faults_that_slow_the_rounds_down(watch: Watch[LocalBackend], undisturbed: RunData, tmp_path: Path) -> None:
    for fault in SLOWING:
        watch.backend.apply(fault)
        watch.rounds(3)
        watch.backend.heal(fault)
    watch.to_the_end()
    assert digests(load_run(tmp_path / "run")) == digests(undisturbed)


def test_faults_on_the_server(watch: Watch[LocalBackend], undisturbed: RunData, tmp_path: Path) -> None:
    for fault in OF_THE_SERVER:
        watch.backend.apply(fault)
        assert watch.backend.supervise(), "a fault is not the end"
        watch.is_silent()
        watch.backend.heal(fault)
        watch.rounds(1)
    watch.backend.apply(Fault(FaultKind.RESTART, (SERVER, 2)))
    watch.rounds(1)
    watch.to_the_end()
    assert digests(load_run(tmp_path / "run")) == digests(undisturbed)


def test_faults_on_one_participant_add_up(watch: Watch[LocalBackend], undisturbed: RunData, tmp_path: Path) -> None:
    """Who is healed of one fault still suffers the other; a process started again still stands still."""
    kill, pause, cut_off = (Fault(kind, (2,)) for kind in (FaultKind.KILL, FaultKind.PAUSE, FaultKind.PARTITION))
    for fault in (cut_off, pause, kill):
        watch.backend.apply(fault)
    for fault in (kill, cut_off):
        watch.stands_still_for((2,))
        watch.backend.heal(fault)
    watch.stands_still_for((2,))
    watch.backend.heal(pause)
    watch.rounds(1)
    watch.to_the_end()
    assert digests(load_run(tmp_path / "run")) == digests(undisturbed)


def test_closing_in_the_middle_of_faults_leaves_nothing_behind(watch: Watch[LocalBackend]) -> None:
    watch.backend.apply(Fault(FaultKind.PAUSE, (1, SERVER)))
    watch.backend.apply(Fault(FaultKind.SLOW_CPU, (2,), fraction=0.1))
    processes = watch.backend._processes
    pids = [processes.server_pid, *processes.agent_pids]
    watch.backend.close()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
