"""Faults on containers: signals, pauses and limits through the Docker SDK, the network by rules in its namespaces.

The federation is that of `fedpg compose`, over mutual TLS. Beside each participant runs a container that owns its
network namespace, and in which `network_rules` are made: see `overlay`. Faults are healed before the run folder
is copied out, and everything that was made is removed in the end.
"""

from __future__ import annotations

import logging
from pathlib import Path

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.errors import ExitCode, FedPGError
from fedpg_common.federation import Federation

from fedpg_lab.deploy.clone import repository
from fedpg_lab.faults.active import ActiveFaults, name_of
from fedpg_lab.faults.backend import SERVER, Fault, FaultKind
from fedpg_lab.faults.docker.containers import Containers
from fedpg_lab.faults.docker.engine import connect
from fedpg_lab.faults.docker.images import build_helper, check_participants
from fedpg_lab.faults.docker.network_needs import FLAVOURS
from fedpg_lab.faults.docker.network_rules import Network, commands, network_of
from fedpg_lab.faults.docker.overlay import network_service
from fedpg_lab.faults.docker.probe import check_kinds
from fedpg_lab.faults.docker.project import DockerProject
from fedpg_lab.faults.docker.start import for_each
from fedpg_lab.faults.docker.status_stream import read_line
from fedpg_lab.local.agents import AGENT_STOP_S, RESTARTS_MAX
from fedpg_lab.local.failures import ProcessFailedError
from fedpg_lab.local.processes import LOG_FOLDER, SERVER_STOP_S
from fedpg_lab.local.roll import Loss, Roll
from fedpg_lab.local.train import AGENTS_LEAVE_S

KILLED = 128 + 9
"""The exit code of a program that was killed, by lack of memory for example."""

log = logging.getLogger(__name__)


class DockerBackend:
    """See `fedpg_lab.faults.backend.Backend`. What holds at a moment follows from the faults that are active then.

    Who is hit, by what and when follows from the scenario's seed. Nothing is drawn here: which packet is lost, late or
    damaged is up to the kernel. A vote that arrives is the same, whatever happened on its way.
    """

    def __init__(self, federation: Federation, folder: Path, seed: int) -> None:
        """A federation whose run folder is to be `folder`. No draw is left for `seed`."""
        self._federation = federation
        self._agents = range(1, federation.agents + 1)
        self._project: DockerProject | None = None
        self._restore = FLAVOURS[0]
        self._addresses: dict[int, str] = {}
        self._active = ActiveFaults()
        self._roll = Roll(federation)
        self._down: set[int] = set()
        self._paused: set[int] = set()
        self._fractions: dict[int, float | None] = {}
        self._networks: dict[int, Network] = {}
        self._restarts: dict[int, int] = {}

    def check(self, kinds: frozenset[FaultKind]) -> None:
        """See `Backend`. Also finds out whether there is an engine, and images or the means to build them."""
        client, root = connect(), repository()
        self._project = DockerProject(client, self._federation, root)
        check_participants(client, root)
        build_helper(client)  # the companions of the participants, whatever the faults
        self._restore = check_kinds(client, kinds).restore

    def start(self) -> None:
        """See `Backend`."""
        self._made.start()
        self._addresses = {index: self._containers.address(name_of(index)) for index in (SERVER, *self._agents)}

    def supervise(self) -> bool:
        """See `Backend`."""
        states = self._containers.states()
        code = states[name_of(SERVER)].exit_code
        if code == ExitCode.OK:
            return False
        for participant in (SERVER, *self._agents):
            network = network_service(name_of(participant))
            if states[network].exit_code is not None:
                raise FedPGError(f"the container {network} has ended, and with it the network of its participant")
        if code is not None and SERVER not in self._down:
            self._mend_server(code)
        for agent in self._agents:
            code = states[name_of(agent)].exit_code
            if code not in (None, ExitCode.OK) and agent not in self._down | self._roll.gone.keys():
                self._mend_agent(agent, code)
        return True

    def status(self) -> pb.GetStatusReply | None:
        """See `Backend`. It is up to a second old."""
        return read_line(self._containers.watcher_line())

    def apply(self, fault: Fault) -> None:
        """See `Backend`."""
        if fault.kind is FaultKind.RESTART:
            for_each([participant for participant in fault.targets if participant not in self._down], self._restart)
            return
        self._active.begin(fault)
        ending = "SIGTERM" if fault.kind is FaultKind.STOP else "SIGKILL"
        for_each(fault.targets, lambda participant: self._reconcile(participant, ending))

    def heal(self, fault: Fault) -> None:
        """See `Backend`."""
        if self._active.end(fault):
            for_each(fault.targets, lambda participant: self._reconcile(participant, "SIGKILL"))

    def finish(self, folder: Path) -> None:
        """See `Backend`. The volume that holds the run goes with the containers, so it is copied out here."""
        containers, server, agents = self._containers, name_of(SERVER), [name_of(agent) for agent in self._agents]
        if containers.states()[server].exit_code == ExitCode.OK:
            containers.await_end(agents, AGENTS_LEAVE_S)
        for names, patience_s in ((agents, AGENT_STOP_S), ([server], SERVER_STOP_S)):
            for name in names:
                containers.send_signal(name, "SIGTERM")
            containers.end(names, patience_s)
        containers.copy_run(folder)
        (folder / LOG_FOLDER).mkdir(parents=True, exist_ok=True)
        for name in (server, *agents):
            (folder / LOG_FOLDER / f"{name}.log").write_bytes(containers.log(name))

    def close(self) -> None:
        """See `Backend`."""
        if self._project is not None:
            self._project.remove()

    @property
    def _made(self) -> DockerProject:
        assert self._project is not None, "check comes before everything else"
        return self._project

    @property
    def _containers(self) -> Containers:
        return self._made.containers

    def _reconcile(self, participant: int, ending: str) -> None:
        """Make it so that what is active holds for this participant, and nothing else."""
        is_down = self._active.is_down(participant)
        if is_down and participant not in self._down:
            self._down.add(participant)
            self._containers.send_signal(name_of(participant), ending)
        self._reconcile_network(participant)  # before it is started, so that it finds what is active
        if not is_down and participant in self._down:
            self._start(participant)
            self._down.discard(participant)
        self._reconcile_pace(participant)

    def _reconcile_network(self, participant: int) -> None:
        """Its rules outlast its program, and need not be made again when that is started again."""
        before = self._networks.get(participant, Network())
        after = network_of(participant, self._active.on(participant), self._addresses)
        steps = commands(before, after, self._restore)
        if steps:
            self._containers.run_in_network(name_of(participant), steps)
            self._networks[participant] = after

    def _reconcile_pace(self, participant: int) -> None:
        """Whether it stands still, or is slow."""
        name, fraction = name_of(participant), self._active.cpu_fraction(participant)
        if fraction != self._fractions.get(participant):
            self._containers.limit_cpu(name, fraction)
            self._fractions[participant] = fraction
        if self._active.is_paused(participant):
            self._paused.add(participant)
            self._containers.stand_still(name)
        elif participant in self._paused:
            self._paused.discard(participant)
            self._containers.go_on(name)

    def _restart(self, participant: int) -> None:
        self._containers.send_signal(name_of(participant), "SIGTERM")
        self._start(participant)

    def _start(self, participant: int) -> None:
        """Start it again, unless it is a server that has ended well; what is to stand still stands still."""
        name = name_of(participant)
        patience_s = SERVER_STOP_S if participant == SERVER else AGENT_STOP_S
        self._containers.end([name], patience_s)
        if participant == SERVER and self._containers.states()[name].exit_code == ExitCode.OK:
            return
        self._containers.start(name)
        if participant in self._paused:
            self._containers.stand_still(name)

    def _mend_server(self, code: int) -> None:
        self._restarts[SERVER] = self._restarts.get(SERVER, 0) + 1
        if code != KILLED or self._restarts[SERVER] > RESTARTS_MAX:
            raise ProcessFailedError(f"the server failed: {self._containers.last_words(name_of(SERVER))}", code)
        log.warning("the server was killed: resuming")
        self._start(SERVER)

    def _mend_agent(self, agent: int, code: int) -> None:
        name = name_of(agent)
        self._restarts[agent] = self._restarts.get(agent, 0) + 1
        if self._restarts[agent] <= RESTARTS_MAX:
            log.warning("%s ended with code %d: starting it again", name, code)
            self._start(agent)
            return
        words = self._containers.last_words(name)
        log.warning("%s is gone: %s", name, words)
        exit_code = ExitCode(code) if code in list(ExitCode) else ExitCode.QUORUM_LOST
        self._roll.lose(Loss(agent, exit_code, words))
        self._roll.check_quorum(0, ())
