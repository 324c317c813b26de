"""Faults on local processes: signals for the processes, a proxy for the network. Needs no root.

Every agent reaches the server through a port of its own (`proxy`), over mutual TLS, as on a real network: a wrong byte
is then noticed by the connection, and cannot make one agent's vote another's. The channel on which colluding attackers
meet is not proxied.
"""

from __future__ import annotations

import logging
import signal
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.errors import RefusedError, UnreachableError
from fedpg_common.federation import Federation
from fedpg_common.transport.channels import TlsFiles, tls_files

from fedpg_lab.deploy.certificates import make_certificates
from fedpg_lab.faults.active import ActiveFaults, name_of
from fedpg_lab.faults.backend import SERVER, Fault, FaultKind
from fedpg_lab.faults.proxy import HOST, FaultProxy
from fedpg_lab.faults.shaping import conditions_of
from fedpg_lab.faults.slow_cpu import Brake
from fedpg_lab.local.processes import SERVER as SERVER_NAME
from fedpg_lab.local.processes import LocalFederation
from fedpg_lab.local.status import fetch_status
from fedpg_lab.local.train import AGENTS_LEAVE_S

STATUS_TIMEOUT_S = 1.0
CERTIFICATE_DAYS = 30

log = logging.getLogger(__name__)


class LocalBackend:
    """See `fedpg_lab.faults.backend.Backend`. What holds at a moment follows from the faults that are active then."""

    def __init__(self, federation: Federation, folder: Path, seed: int) -> None:
        """A federation whose run folder is `folder`; the network's draws follow from `seed`."""
        self._federation = federation
        self._folder = folder
        self._agents = range(1, federation.agents + 1)
        self._proxy = FaultProxy(self._agents, seed)
        self._resources = ExitStack()
        self._active = ActiveFaults()
        self._down: set[int] = set()
        self._paused: set[int] = set()
        self._brakes: dict[int, Brake] = {}

    def check(self, kinds: frozenset[FaultKind]) -> None:
        """Every kind can be made."""

    def start(self) -> None:
        """See `Backend`."""
        keys = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="fedpg-keys-")))
        make_certificates(keys, self._federation.agents, [HOST], CERTIFICATE_DAYS, datetime.now(UTC))
        self._resources.callback(self._proxy.close)
        addresses = self._proxy.start()

        def way_to_server(agent: int, address: str) -> str:
            self._proxy.point_to(address)
            return addresses[agent]

        def tls(name: str) -> TlsFiles | None:
            return tls_files(keys / name)

        self._server_tls = tls(SERVER_NAME)
        self._processes = LocalFederation(
            self._federation, self._folder, tls=tls, way_to_server=way_to_server, restarts_failures=True
        )
        self._resources.enter_context(self._processes)
        self._resources.callback(self._let_go)

    def supervise(self) -> bool:
        """See `Backend`."""
        return self._processes.supervise()

    def status(self) -> pb.GetStatusReply | None:
        """See `Backend`."""
        try:
            return fetch_status(self._processes.address, self._server_tls, STATUS_TIMEOUT_S)
        except (UnreachableError, RefusedError) as error:
            log.debug("no status: %s", error)  # the server is down, paused or coming back
            return None

    def apply(self, fault: Fault) -> None:
        """See `Backend`."""
        if fault.kind is FaultKind.RESTART:
            for participant in fault.targets:
                if participant not in self._down:
                    self._end(participant, signal.SIGTERM)
                    self._start(participant)
            return
        self._active.begin(fault)
        self._reconcile(fault.targets, signal.SIGTERM if fault.kind is FaultKind.STOP else signal.SIGKILL)

    def heal(self, fault: Fault) -> None:
        """See `Backend`."""
        if self._active.end(fault):
            self._reconcile(fault.targets, signal.SIGKILL)

    def finish(self, folder: Path) -> None:
        """See `Backend`. The run folder has been there from the start."""
        self._processes.wait_for_agents(AGENTS_LEAVE_S)

    def close(self) -> None:
        """See `Backend`."""
        self._resources.close()

    def _let_go(self) -> None:
        """A process that stands still would not hear that it is to end."""
        for participant in list(self._brakes):
            self._brakes.pop(participant).release()
        for participant in self._paused:
            self._signal(participant, signal.SIGCONT)
        self._paused.clear()

    def _reconcile(self, participants: Iterable[int], ending: signal.Signals) -> None:
        """Make it so that what is active holds, and nothing else, for these participants and their links."""
        for participant in participants:
            is_down = self._active.is_down(participant)
            if is_down and participant not in self._down:
                self._end(participant, ending)
            elif not is_down and participant in self._down:
                self._start(participant)
            self._reconcile_pace(participant)
        for agent in self._agents if SERVER in participants else participants:
            self._proxy.set_conditions(agent, conditions_of(self._active.on_link(agent)))

    def _reconcile_pace(self, participant: int) -> None:
        """Whether it stands still, or is slow. A brake must not let go of what is to stand still."""
        is_paused, fraction = self._active.is_paused(participant), self._active.cpu_fraction(participant)
        if participant in self._brakes:
            self._brakes.pop(participant).release()
        if is_paused:
            self._paused.add(participant)
            self._signal(participant, signal.SIGSTOP)
        elif participant in self._paused:
            self._paused.discard(participant)
            self._signal(participant, signal.SIGCONT)
        if fraction is not None and not is_paused:
            self._brakes[participant] = Brake(lambda number: self._signal(participant, number), fraction)

    def _end(self, participant: int, ending: signal.Signals) -> None:
        self._down.add(participant)
        self._processes.held_down.add(name_of(participant))
        self._signal(participant, ending)
        if ending is signal.SIGTERM:
            self._signal(participant, signal.SIGCONT)  # it does not hear it while it stands still

    def _start(self, participant: int) -> None:
        self._processes.start_again(name_of(participant))
        self._processes.held_down.discard(name_of(participant))
        self._down.discard(participant)
        if participant in self._paused:
            self._signal(participant, signal.SIGSTOP)

    def _signal(self, participant: int, number: signal.Signals) -> None:
        self._processes.send_signal(name_of(participant), number)
