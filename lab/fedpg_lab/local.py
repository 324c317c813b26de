"""A federation of local processes: one server, and the agents spread over as many processes as wanted."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from fedpg_client.attacks import Knowledge, knowledge_of
from fedpg_client.attacks.scene import UNKNOWN_RULE
from fedpg_client.process import AgentOptions, Collusion
from fedpg_common.catalogue import ALGORITHMS
from fedpg_common.channels import TlsFiles
from fedpg_common.choices import Choice
from fedpg_common.errors import ExitCode, FedPGError
from fedpg_common.federation import Federation
from fedpg_common.modules import make_importable
from fedpg_common.streams import attackers_secret
from fedpg_server.server import SHIPPED_OBSERVERS, ServerOptions

from fedpg_lab.children import agents_main, end, fork_server, server_main, spawn

SERVER = "server"
LOG_FOLDER = "logs"
RESTARTS_MAX = 5
AGENT_STOP_S = 3.0
SERVER_STOP_S = 60.0
"""A server finishes the improvement that it is in."""

log = logging.getLogger(__name__)


class ProcessFailedError(FedPGError):
    """A process of the federation ended with an error that starting it again does not mend."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Take over the failed process's exit code."""
        super().__init__(message)
        self.exit_code = ExitCode(exit_code) if exit_code in list(ExitCode) else ExitCode.BUG


@dataclass
class _AgentGroup:
    """Agents that share a process."""

    name: str
    agents: Sequence[AgentOptions]
    process: ForkServerProcess
    restarts: int = 0


Tls = Callable[[str], TlsFiles | None]
"""The TLS files of a participant: "server" or "agent-N"."""


@dataclass
class LocalFederation:
    """The processes of one run. A context manager: leaving it ends them all."""

    federation: Federation
    folder: Path
    resume: bool = False
    agents_per_process: int = 1
    observers: tuple[Choice, ...] = SHIPPED_OBSERVERS
    tls: Tls = lambda _name: None
    way_to_server: Callable[[int, str], str] = lambda _agent, address: address
    """Under which address an agent reaches the server at that address."""
    restarts_failures: bool = False
    """Whether an agent that ended with an error of its own is started again, and not only one that was killed."""
    held_down: set[str] = field(default_factory=set, init=False)
    """Processes ("server", "agent-3") that somebody has ended on purpose: they are not started again."""
    address: str = field(default="127.0.0.1:0", init=False)

    def __enter__(self) -> LocalFederation:
        """Start everything. Raises UsageError for an attack that cannot be, ProcessFailedError for a failed start."""
        make_importable(self.federation)  # children inherit the path
        self._options = agent_options(self.federation, self.address)
        self._context = fork_server()
        self._groups: list[_AgentGroup] = []
        self._server_restarts = 0
        self._server: ForkServerProcess = self._start_server(self.resume)
        try:
            self._start_agents()
        except BaseException:
            self._end_all()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        """End every process."""
        self._end_all()

    def supervise(self) -> bool:
        """Start again what was killed. False once the server has ended well.

        Raises ProcessFailedError when the server or all agents ended with an error of their own, or too often.
        """
        code = self._server.exitcode
        if code == ExitCode.OK:
            return False
        if code is not None and SERVER not in self.held_down:
            self._mend_server(code)
        for group in list(self._groups):
            if group.process.exitcode not in (None, ExitCode.OK) and group.name not in self.held_down:
                self._mend_agents(group)
        return True

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process, unless it has ended."""
        process = self._process(name)
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)

    def start_again(self, name: str) -> None:
        """Start a process that has ended; the server resumes. Waits for it to end, if it is still about to."""
        self._process(name).join()
        if name == SERVER:
            if self._server.exitcode != ExitCode.OK:
                self._server = self._start_server(resume=True)
            return
        group = self._group(name)
        group.process = spawn(self._context, group.name, self.log_path(group.name), agents_main, group.agents)

    def _process(self, name: str) -> ForkServerProcess:
        return self._server if name == SERVER else self._group(name).process

    def _group(self, name: str) -> _AgentGroup:
        return next(group for group in self._groups if group.name == name)

    def wait_for_agents(self, patience_s: float) -> None:
        """Let the agents end by themselves after the run."""
        for group in self._groups:
            group.process.join(patience_s)

    @property
    def server_pid(self) -> int:
        """The server's process id."""
        assert self._server.pid is not None
        return self._server.pid

    @property
    def agent_pids(self) -> list[int]:
        """The agents' process ids."""
        return [group.process.pid for group in self._groups if group.process.pid is not None]

    @property
    def restarts(self) -> int:
        """How often a process was started again."""
        return self._server_restarts + sum(group.restarts for group in self._groups)

    def log_path(self, name: str) -> Path:
        """Where a process's output goes."""
        return self.folder / LOG_FOLDER / f"{name}.log"

    def _start_server(self, resume: bool) -> ForkServerProcess:
        receiver, sender = self._context.Pipe(duplex=False)
        options = ServerOptions(
            folder=self.folder,
            address=self.address,
            federation=None if resume else self.federation,
            observers=self.observers,
            tls=self.tls(SERVER),
        )
        server = spawn(self._context, SERVER, self.log_path(SERVER), server_main, options, sender)
        sender.close()
        try:
            kind, text = receiver.recv()
        except EOFError:
            kind, text = "failed", f"the server ended while starting: see {self.log_path('server')}"
        if kind != "bound":
            server.join()
            raise ProcessFailedError(text, server.exitcode or ExitCode.BUG)
        self.address = text
        return server

    def _start_agents(self) -> None:
        everyone = [
            replace(
                options,
                server=self.way_to_server(options.index, self.address),
                tls=self.tls(f"agent-{options.index}"),
            )
            for options in self._options
        ]
        for start in range(0, len(everyone), self.agents_per_process):
            group = everyone[start : start + self.agents_per_process]
            name = f"agent-{group[0].index}" + (f"-{group[-1].index}" if len(group) > 1 else "")
            process = spawn(self._context, name, self.log_path(name), agents_main, group)
            self._groups.append(_AgentGroup(name, group, process))

    def _mend_server(self, code: int) -> None:
        self._server_restarts += 1
        if code > 0 or self._server_restarts > RESTARTS_MAX:
            raise ProcessFailedError(f"the server failed: {last_words(self.log_path('server'), code)}", code)
        log.warning("the server was killed by signal %d: resuming", -code)
        self._server = self._start_server(resume=True)

    def _mend_agents(self, group: _AgentGroup) -> None:
        code = group.process.exitcode or 0
        group.restarts += 1
        if (code < 0 or self.restarts_failures) and group.restarts <= RESTARTS_MAX:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            log.warning("%s %s: starting it again", group.name, how)
            group.process = spawn(self._context, group.name, self.log_path(group.name), agents_main, group.agents)
            return
        self._groups.remove(group)
        log.warning("%s is gone: %s", group.name, last_words(self.log_path(group.name), code))
        if sum(len(rest.agents) for rest in self._groups) < self.federation.quorum:
            raise ProcessFailedError("too few agents are left for a quorum: see the logs in the run folder", code)

    def _end_all(self) -> None:
        for group in self._groups:
            if group.process.is_alive():
                group.process.terminate()
        for group in self._groups:
            end(group.process, AGENT_STOP_S)
        end(self._server, SERVER_STOP_S)


def agent_options(federation: Federation, server: str) -> list[AgentOptions]:
    """Every agent's configuration on this machine.

    Agents with the same attack, settings included, collude with each other if it is an attack that does: they meet on
    a loopback port of their own, share a secret that follows from the run's seed, and know the server's rule. That seed
    itself is for attackers whose attack is omniscient. Raises UsageError for an attack or a setting that is not one.
    """
    collusions: dict[int, Collusion] = {}
    omniscient: set[int] = set()
    rule: Choice | None = None
    for attack, attackers in same_attack(federation):
        knowledge = knowledge_of(attack)
        if knowledge >= Knowledge.COLLUDERS:
            rule = rule_of(federation)
            meeting_point = free_address() if len(attackers) > 1 else ""
            secret = attackers_secret(federation.seed, attackers)
            for index in attackers:
                listen = meeting_point if index == attackers[0] else ""
                collusions[index] = Collusion(attackers, meeting_point, listen, secret)
        if knowledge >= Knowledge.OMNISCIENT:
            omniscient.update(attackers)
    return [
        AgentOptions(
            index,
            server,
            federation.byzantine.get(index),
            collusions.get(index),
            run_seed=federation.seed if index in omniscient else None,
            aggregator=rule if index in collusions else None,
        )
        for index in range(1, federation.agents + 1)
    ]


def rule_of(federation: Federation) -> Choice:
    """The aggregator that the server uses: the description's, or the algorithm's own. Raises UsageError."""
    if federation.aggregator is not None:
        return federation.aggregator
    algorithm = ALGORITHMS.find(federation.algorithm.name)
    return Choice(getattr(algorithm, "default_aggregator", UNKNOWN_RULE.name))


def same_attack(federation: Federation) -> list[tuple[Choice, tuple[int, ...]]]:
    """Each attack of the federation, and the agents that make it, ascending."""
    groups: list[tuple[Choice, list[int]]] = []
    for index, attack in sorted(federation.byzantine.items()):
        members = next((members for other, members in groups if other == attack), None)
        if members is None:
            groups.append((attack, [index]))
        else:
            members.append(index)
    return [(attack, tuple(members)) for attack, members in groups]


def free_address() -> str:
    """A loopback address whose port is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def last_words(path: Path, exit_code: int) -> str:
    """The sentence with which a process failed, or what its exit code or its log tells of it, or where to look."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    except OSError:
        lines = []
    sentences = [line for line in lines if line.startswith("fedpg-")]
    if sentences and exit_code != ExitCode.BUG:
        return sentences[-1]
    if exit_code == ExitCode.STORAGE:
        return f"it could write neither its store nor its log {path}: is the disk full?"
    return lines[-1] if lines else f"see {path}"
