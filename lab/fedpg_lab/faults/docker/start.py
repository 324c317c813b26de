"""Starting a federation in containers so that its first round finds everybody there.

A round's deadline counts from its opening, and the first one is opened when the server starts. In a scenario deadlines
are short, while containers take their time to start, so the agents come first: each stands still as soon as it looks
for the server, and goes on once the server serves. In this way they join together, as processes of one machine do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fedpg_common.errors import ExitCode

from fedpg_lab.faults.docker.containers import Containers
from fedpg_lab.faults.docker.engine import EngineError
from fedpg_lab.faults.docker.overlay import CERTIFICATES, WATCHER, network_service
from fedpg_lab.faults.docker.status_stream import read_line
from fedpg_lab.local.failures import ProcessFailedError
from fedpg_lab.local.processes import SERVER

Thing = TypeVar("Thing")

PATIENCE_S = 600.0
"""For each step; a machine that is slower than that is of no use for an experiment."""
POLL_S = 0.2
PARALLEL_MAX = 16
"""Requests to the engine at a time."""
_COUNTERS = ("grep", "^Tcp:", "/proc/net/snmp")
"""The connections that were tried in a network namespace, among other figures."""


def for_each(things: Sequence[Thing], act: Callable[[Thing], object]) -> None:
    """Do it to all, as good as at once: a fault that hits many hits them together. Raises what was raised first."""
    with ThreadPoolExecutor(max_workers=PARALLEL_MAX) as pool:
        list(pool.map(act, things))


def bring_up(containers: Containers, agents: Sequence[str]) -> None:
    """Start containers that have been created. Raises EngineError, ProcessFailedError."""
    everyone = [SERVER, *agents]
    containers.start(CERTIFICATES)
    for_each([network_service(name) for name in everyone], containers.start)
    _await(containers, "the certificates", lambda: containers.states()[CERTIFICATES].exit_code == ExitCode.OK)
    for_each(agents, containers.start)
    looking: set[str] = set()

    def hold(agent: str) -> None:
        if has_tried_to_connect(containers.run_in_network(agent, [_COUNTERS])):
            containers.stand_still(agent)
            looking.add(agent)

    def hold_the_rest() -> bool:
        for_each([agent for agent in agents if agent not in looking], hold)
        return len(looking) == len(agents)

    _await(containers, "the agents", hold_the_rest)
    for_each([SERVER, WATCHER], containers.start)
    _await(containers, "the server", lambda: read_line(containers.watcher_line()) is not None)
    for_each(agents, containers.go_on)


def has_tried_to_connect(counters: str) -> bool:
    """Whether the kernel's TCP figures, a line of names and one of values, tell of a connection that was tried."""
    names, values, *_ = (line.split() for line in counters.splitlines())
    return int(dict(zip(names, values, strict=True))["ActiveOpens"]) > 0


def _await(containers: Containers, what: str, is_there: Callable[[], bool]) -> None:
    """Wait for it, as long as nobody fails."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_there():
        for name, state in containers.states().items():
            if state.exit_code not in (None, ExitCode.OK):
                raise ProcessFailedError(f"{name} ended while starting: {containers.last_words(name)}", state.exit_code)
        if time.monotonic() >= deadline_s:
            raise EngineError(f"{what} did not come up within {PATIENCE_S:.0f} s")
        time.sleep(POLL_S)
