"""A federation in containers starts so that its first round finds every agent there, or says who failed and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from fedpg_common.errors import ExitCode
from fedpg_lab.faults.docker import start as docker_start
from fedpg_lab.faults.docker.containers import Containers, State
from fedpg_lab.faults.docker.engine import EngineError
from fedpg_lab.faults.docker.network_rules import Command
from fedpg_lab.faults.docker.start import bring_up, has_tried_to_connect
from fedpg_lab.local.failures import ProcessFailedError

AGENTS = ["agent-1", "agent-2"]
STATUS = "CAc="
COUNTERS = "Tcp: RtoMin ActiveOpens PassiveOpens\nTcp: 200 {} 7\n"


class FakeContainers:
    """Containers that come up when they are asked for the second time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = ""
        """Who ends with an error when it is started."""
        self.never_up = False
        self._states: dict[str, State] = {}
        self._tries = dict.fromkeys(["server", *AGENTS], 0)

    def start(self, name: str) -> None:
        self.asked.append(f"start {name}")
        is_over = {"certs": ExitCode.OK, self.fails: ExitCode.STORAGE}.get(name)
        self._states[name] = State("running") if is_over is None else State("exited", is_over)

    def states(self) -> dict[str, State]:
        return dict(self._states)

    def stand_still(self, name: str) -> None:
        self.asked.append(f"pause {name}")

    def go_on(self, name: str) -> None:
        self.asked.append(f"unpause {name}")

    def run_in_network(self, name: str, steps: Sequence[Command]) -> str:
        return COUNTERS.format(1 if self._is_up(name) else 0)

    def watcher_line(self) -> str:
        return STATUS if self._is_up("server") else "-"

    def last_words(self, name: str) -> str:
        return f"the last words of {name}"

    def _is_up(self, name: str) -> bool:
        self._tries[name] += 1
        return self._tries[name] > 1 and not self.never_up


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeContainers:
    monkeypatch.setattr(docker_start, "POLL_S", 0.0)
    return FakeContainers()


def start(engine: FakeContainers) -> None:
    bring_up(cast(Containers, engine), AGENTS)


def test_the_server_comes_when_every_agent_looks_for_it(engine: FakeContainers) -> None:
    start(engine)
    when = {what: number for number, what in enumerate(engine.asked)}
    for agent in AGENTS:
        assert when["start certs"] < when[f"start {agent}"] < when[f"pause {agent}"] < when["start server"]
        assert when[f"start net-{agent}"] < when[f"start {agent}"]
        assert when["start server"] < when[f"unpause {agent}"]
    assert when["start net-server"] < when["start server"]


@pytest.mark.parametrize("name", ["certs", "agent-2", "server", "watcher"])
def test_who_ends_while_starting_is_told_by_its_last_words(engine: FakeContainers, name: str) -> None:
    engine.fails, engine.never_up = name, True
    if name in ("server", "watcher"):
        engine.never_up = False
        engine._tries = {"server": -1000, **dict.fromkeys(AGENTS, 1)}
    with pytest.raises(ProcessFailedError, match=f"^{name} ended while starting: the last words of {name}$") as failed:
        start(engine)
    assert failed.value.exit_code is ExitCode.STORAGE


def test_nobody_is_waited_for_without_end(engine: FakeContainers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_start, "PATIENCE_S", 0.0)
    engine.never_up = True
    with pytest.raises(EngineError, match="the agents did not come up within 0 s"):
        start(engine)


def test_a_connection_that_was_tried_is_seen_in_the_kernels_figures() -> None:
    assert not has_tried_to_connect(COUNTERS.format(0))
    assert has_tried_to_connect(COUNTERS.format(3))
