"""Who is started again in a container still suffers what is active, and nobody is started while a fault keeps it down.

The engine is replaced by a list of what it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode, FedPGError
from fedpg_lab.faults.backend import SERVER, Fault, FaultKind
from fedpg_lab.faults.docker.backend import KILLED, DockerBackend
from fedpg_lab.faults.docker.containers import State
from fedpg_lab.faults.docker.network_rules import Command
from fedpg_lab.local.agents import RESTARTS_MAX
from fedpg_lab.local.failures import AgentsLostError, ProcessFailedError

AGENTS = 4
RUNNING = State("running")
CUT, OPEN = "-A INPUT ! -i lo -j DROP", "COMMIT"


class FakeContainers:
    """What is asked of each container, in order."""

    def __init__(self) -> None:
        names = ["server", *(f"agent-{index}" for index in range(1, AGENTS + 1))]
        self._states = dict.fromkeys([*names, *(f"net-{name}" for name in names)], RUNNING)
        self.asked: dict[str, list[str]] = {name: [] for name in names}
        self.line = ""

    def set_state(self, name: str, exit_code: int | None) -> None:
        self._states[name] = RUNNING if exit_code is None else State("exited", exit_code)

    def states(self) -> dict[str, State]:
        return dict(self._states)

    def last_words(self, name: str) -> str:
        return f"the last words of {name}"

    def watcher_line(self) -> str:
        return self.line

    def send_signal(self, name: str, signal_name: str) -> None:
        self.asked[name].append(signal_name)
        self.set_state(name, KILLED if signal_name == "SIGKILL" else ExitCode.TERMINATED)

    def end(self, names: Sequence[str], patience_s: float) -> None:
        assert all(self._states[name].exit_code is not None for name in names)
        assert patience_s > 0

    def start(self, name: str) -> None:
        self.asked[name].append("start")
        self.set_state(name, None)

    def stand_still(self, name: str) -> None:
        self.asked[name].append("pause")

    def go_on(self, name: str) -> None:
        self.asked[name].append("unpause")

    def limit_cpu(self, name: str, fraction: float | None) -> None:
        self.asked[name].append(f"cpu {fraction}")

    def run_in_network(self, name: str, steps: Sequence[Command]) -> None:
        (step,) = steps
        self.asked[name].append("cut" if CUT in step else "mend")


class FakeProject:
    """A project that is there."""

    def __init__(self) -> None:
        self.containers = FakeContainers()


@pytest.fixture
def engine() -> FakeContainers:
    return FakeContainers()


@pytest.fixture
def backend(engine: FakeContainers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DockerBackend:
    made = DockerBackend(describe("CartPole-v1", agents=AGENTS), tmp_path / "run", seed=0)
    project = FakeProject()
    project.containers = engine
    monkeypatch.setattr(made, "_project", project)
    return made


KILL, STOP, PAUSE, PARTITION = (
    Fault(kind, (2,)) for kind in (FaultKind.KILL, FaultKind.STOP, FaultKind.PAUSE, FaultKind.PARTITION)
)


def test_what_is_killed_is_started_when_it_is_healed(backend: DockerBackend, engine: FakeContainers) -> None:
    backend.apply(KILL)
    assert engine.asked["agent-2"] == ["SIGKILL"]
    assert backend.supervise()
    backend.heal(KILL)
    assert engine.asked["agent-2"] == ["SIGKILL", "start"]


def test_rules_are_made_once_and_hold_for_whoever_is_started_again(
    backend: DockerBackend, engine: FakeContainers
) -> None:
    for fault in (PARTITION, KILL):
        backend.apply(fault)
    backend.heal(KILL)
    assert engine.asked["agent-2"] == ["cut", "SIGKILL", "start"]
    backend.heal(PARTITION)
    assert engine.asked["agent-2"][3:] == ["mend"]


def test_rules_that_change_while_it_is_down_are_there_when_it_starts(
    backend: DockerBackend, engine: FakeContainers
) -> None:
    both = Fault(FaultKind.KILL, (2, 3))
    for fault in (both, PARTITION):
        backend.apply(fault)
    backend.heal(both)
    assert engine.asked["agent-2"] == ["SIGKILL", "cut", "start"]
    assert engine.asked["agent-3"] == ["SIGKILL", "start"]


def test_what_is_to_stand_still_does_so_after_a_start(backend: DockerBackend, engine: FakeContainers) -> None:
    for fault in (PAUSE, KILL):
        backend.apply(fault)
    backend.heal(KILL)
    asked = engine.asked["agent-2"]
    assert asked[: asked.index("start") + 2][-2:] == ["start", "pause"]
    assert "unpause" not in asked
    backend.heal(PAUSE)
    assert engine.asked["agent-2"][-1] == "unpause"


def test_two_faults_that_keep_it_down_are_both_to_be_healed(backend: DockerBackend, engine: FakeContainers) -> None:
    for fault in (STOP, KILL):
        backend.apply(fault)
    backend.heal(STOP)
    assert engine.asked["agent-2"] == ["SIGTERM"]
    backend.heal(KILL)
    assert engine.asked["agent-2"] == ["SIGTERM", "start"]


def test_a_restart_leaves_what_a_fault_keeps_down(backend: DockerBackend, engine: FakeContainers) -> None:
    backend.apply(KILL)
    backend.apply(Fault(FaultKind.RESTART, (SERVER, 2)))
    assert engine.asked["server"] == ["SIGTERM", "start"]
    assert engine.asked["agent-2"] == ["SIGKILL"]


def test_the_share_of_a_core_is_the_latest_ones_and_is_lifted(backend: DockerBackend, engine: FakeContainers) -> None:
    half, tenth = (Fault(FaultKind.SLOW_CPU, (1,), fraction=fraction) for fraction in (0.5, 0.1))
    for fault in (half, tenth):
        backend.apply(fault)
    for fault in (tenth, half):
        backend.heal(fault)
    assert engine.asked["agent-1"] == ["cpu 0.5", "cpu 0.1", "cpu 0.5", "cpu None"]


def test_an_agent_that_gives_up_is_started_again_some_times(backend: DockerBackend, engine: FakeContainers) -> None:
    for _ in range(RESTARTS_MAX + 1):
        engine.set_state("agent-4", ExitCode.UNREACHABLE)
        assert backend.supervise()
    assert engine.asked["agent-4"] == ["start"] * RESTARTS_MAX
    assert backend.supervise()


def test_too_few_agents_for_a_quorum_are_the_end(backend: DockerBackend, engine: FakeContainers) -> None:
    def fail() -> None:
        for _ in range(RESTARTS_MAX + 1):
            engine.set_state("agent-3", ExitCode.REFUSED)
            engine.set_state("agent-4", ExitCode.REFUSED)
            backend.supervise()

    reasons = "agent 3: the last words of agent-3; agent 4: the last words of agent-4"
    with pytest.raises(AgentsLostError, match=f"cannot reach its quorum of 3: {reasons}") as lost:
        fail()
    assert lost.value.exit_code is ExitCode.REFUSED


def test_a_server_that_ended_well_is_the_end_and_is_not_started_again(
    backend: DockerBackend, engine: FakeContainers
) -> None:
    stop = Fault(FaultKind.STOP, (SERVER,))
    backend.apply(stop)
    engine.set_state("server", ExitCode.OK)
    assert not backend.supervise()
    backend.heal(stop)
    assert engine.asked["server"] == ["SIGTERM"]


def test_a_server_that_fails_by_itself_is_told_by_its_last_words(
    backend: DockerBackend, engine: FakeContainers
) -> None:
    engine.set_state("server", KILLED)
    assert backend.supervise()
    assert engine.asked["server"] == ["start"]
    engine.set_state("server", ExitCode.STORAGE)
    with pytest.raises(ProcessFailedError, match="the server failed: the last words of server") as failed:
        backend.supervise()
    assert failed.value.exit_code is ExitCode.STORAGE


def test_a_namespace_that_is_lost_is_no_network_without_faults(backend: DockerBackend, engine: FakeContainers) -> None:
    engine.set_state("net-agent-1", KILLED)
    with pytest.raises(FedPGError, match="the container net-agent-1 has ended"):
        backend.supervise()


def test_no_status_is_taken_from_a_line_without_one(backend: DockerBackend, engine: FakeContainers) -> None:
    for line in ("", "-", "Traceback (most recent call last):", "####"):
        engine.line = line
        assert backend.status() is None
    engine.line = "CAc=\n"
    assert isinstance(backend.status(), pb.GetStatusReply)
