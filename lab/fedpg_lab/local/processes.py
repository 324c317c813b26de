"""A federation of local processes: one server, and the agents spread over as many processes as wanted."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from fedpg_client.attacks import Knowledge, knowledge_of
from fedpg_client.attacks.scene import UNKNOWN_RULE
from fedpg_client.fates import Ended, Fate
from fedpg_client.process import AgentOptions, Collusion
from fedpg_client.trust import trusting
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import attackers_secret
from fedpg_common.errors import ExitCode, FedPGError, RefusedError, UnreachableError
from fedpg_common.federation import Federation
from fedpg_common.modules import make_importable
from fedpg_common.shipped import ALGORITHMS
from fedpg_common.transport.channels import TlsFiles
from fedpg_server.protocol.situation import name_agents
from fedpg_server.server import SHIPPED_OBSERVERS, ServerOptions

from fedpg_lab.local.children import agents_main, end, fork_server, server_main, spawn
from fedpg_lab.local.failures import AgentsLostError
from fedpg_lab.local.failures import ProcessFailedError as ProcessFailedError  # for those who run a federation
from fedpg_lab.local.roll import Loss, Roll
from fedpg_lab.local.status import fetch_status
from fedpg_lab.runs.folders import load_run

SERVER = "server"
LOG_FOLDER = "logs"
RESTARTS_MAX = 5
AGENT_STOP_S = 3.0
ASK_EVERY_S = 1.0
STATUS_TIMEOUT_S = 2.0
SILENT_MAX_S = 30.0
"""How long a server may not answer while no agent is left."""
SERVER_STOP_S = 60.0
"""A server finishes the improvement that it is in."""

log = logging.getLogger(__name__)


@dataclass
class _AgentGroup:
    """Agents that share a process."""

    name: str
    agents: Sequence[AgentOptions]
    process: ForkServerProcess
    telling: Connection
    restarts: int = 0
    is_over: bool = False
    """Whether it has ended and is not started again."""

    def fates(self) -> Iterator[Fate]:
        """What the process has told since the last time."""
        try:
            while not self.telling.closed and self.telling.poll():
                yield self.telling.recv()
        except (EOFError, OSError):
            self.telling.close()


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
    needs_everybody: bool = False
    """Whether the run fails as soon as an agent that is to vote in every round has failed for good, or misses one."""
    trajectories: int | None = None
    """Where a resumed run is to end, if not where its description says."""
    held_down: set[str] = field(default_factory=set, init=False)
    """Processes ("server", "agent-3") that somebody has ended on purpose: they are not started again."""
    address: str = field(default="127.0.0.1:0", init=False)

    def __post_init__(self) -> None:
        """Nobody is lost yet."""
        self._roll = Roll(self.federation)

    def __enter__(self) -> LocalFederation:
        """Start everything. Raises UsageError for an attack that cannot be, ProcessFailedError for a failed start."""
        make_importable(self.federation)  # children inherit the path
        self._options = agent_options(self.federation, self.address)
        self._context = fork_server()
        self._groups: list[_AgentGroup] = []
        self._server_restarts = 0
        self._is_lost = False
        self._asked_s = self._answered_s = time.monotonic()
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
        """Start again what was killed. False once the run has ended.

        Raises ProcessFailedError when the server ended with an error of its own, or too often, and AgentsLostError when
        so many agents did, or were refused, that the open round cannot reach its quorum any more.
        """
        code = self._server.exitcode
        if code == ExitCode.OK and self._has_run_ended():
            return False
        if code is not None and SERVER not in self.held_down:
            if code >= 0 and self._is_complete():
                log.warning("the server ended with exit status %d, but after the run had ended; see %s",
                            code, self.log_path(SERVER))  # fmt: skip
                return False
            self._mend_server(code)
        for group in self._groups:
            if not group.is_over:
                self._look_after(group)
        if self.needs_everybody:
            self._roll.check_everybody()
        if self._roll.is_suspicious:
            self._check_quorum()
        return True

    @property
    def failed_agents(self) -> dict[int, str]:
        """Why agents are gone that ended before the run did, by agent."""
        return {agent: loss.reason for agent, loss in sorted(self._roll.gone.items())}

    @property
    def note(self) -> str:
        """Who is gone, for the display; empty while all is well."""
        gone = self._roll.gone
        if not gone:
            return ""
        are = "are" if len(gone) > 1 else "is"
        return f"{name_agents(gone)} {are} gone: rounds wait for {self.federation.round_timeout_s:g} s"

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
        self._start_group(self._group(name))

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
            trajectories=self.trajectories if resume else None,
            observers=self.observers,
            tls=self.tls(SERVER),
        )
        server = spawn(self._context, SERVER, self.log_path(SERVER), server_main, options, sender)
        sender.close()
        try:
            kind, text = receiver.recv()
        except EOFError:
            server.join()
            words = last_words(self.log_path(SERVER), server.exitcode or ExitCode.BUG)
            kind, text = "failed", f"the server ended while starting: {words}"
        except BaseException:
            end(server, SERVER_STOP_S)  # Ctrl-C: nobody knows of this process yet
            raise
        if kind != "bound":
            server.join()
            raise ProcessFailedError(text, server.exitcode or ExitCode.BUG)
        self.address = text
        self._server_tells, self._is_run_ended = receiver, False
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
            process, telling = self._spawn_agents(name, group)
            self._groups.append(_AgentGroup(name, group, process, telling))

    def _spawn_agents(self, name: str, agents: Sequence[AgentOptions]) -> tuple[ForkServerProcess, Connection]:
        receiver, sender = self._context.Pipe(duplex=False)
        process = spawn(self._context, name, self.log_path(name), agents_main, agents, sender)
        sender.close()
        return process, receiver

    def _start_group(self, group: _AgentGroup, also: Iterable[int] = ()) -> None:
        """Start a group's process again, for those of its agents that have not ended, and `also` for these."""
        group.telling.close()
        self._roll.take_back(also)
        left = [agent for agent in group.agents if not self._roll.has_ended(agent.index)]
        group.process, group.telling = self._spawn_agents(group.name, left)

    def _has_run_ended(self) -> bool:
        """Whether the server said so before it ended: with exit status 0, other things may have ended it."""
        while not self._is_run_ended and self._server_tells.poll():
            try:
                self._is_run_ended = self._server_tells.recv()[0] == "ended"
            except (EOFError, OSError):
                break
        return self._is_run_ended

    def _is_complete(self) -> bool:
        """Whether the store has every round, whatever happened to its server afterwards."""
        try:
            return load_run(self.folder).is_complete
        except FedPGError:
            return False

    def _mend_server(self, code: int) -> None:
        self._server_restarts += 1
        log_path = self.log_path(SERVER)
        if code == ExitCode.OK:
            raise ProcessFailedError(
                f"the server's process ended with exit status 0 before the run had ended; see {log_path}",
                ExitCode.ENVIRONMENT,
            )
        if code > 0 or self._server_restarts > RESTARTS_MAX:
            words = last_words(log_path, code)
            where = "" if str(log_path) in words else f"; see {log_path}"
            raise ProcessFailedError(f"the server failed: {words}{where}", code)
        log.warning("the server was killed by %s: resuming", name_of_signal(-code))
        self._server = self._start_server(resume=True)

    def _look_after(self, group: _AgentGroup) -> None:
        """Take down what a process tells of its agents, and start it again if it was killed."""
        code = group.process.exitcode  # first, so that all is read that it told before it ended
        fates = list(group.fates())
        if group.name in self.held_down:
            return
        for fate in fates:
            self._roll.note(fate, self.log_path(group.name))
            if isinstance(fate, Ended) and fate.code != ExitCode.OK and not self.restarts_failures:
                log.warning("agent %d is gone: %s; see %s", fate.agent, fate.reason, self.log_path(group.name))
        if code is not None:
            self._mend_agents(group, code)

    def _mend_agents(self, group: _AgentGroup, code: int) -> None:
        """Start again what ended, or take down that it is gone."""
        indices = [agent.index for agent in group.agents]
        cut_off = [index for index in indices if not self._roll.has_ended(index)]
        failed = [index for index in indices if index in self._roll.gone]
        how = f"was killed by {name_of_signal(-code)}" if code < 0 else f"ended with exit status {code}"
        is_worth_it = (code < 0 and cut_off) or (self.restarts_failures and (cut_off or failed))
        if is_worth_it and group.restarts < RESTARTS_MAX:
            group.restarts += 1
            log.warning("%s %s: starting it again", group.name, how)
            self._start_group(group, also=failed if self.restarts_failures else ())
            return
        group.is_over = True
        times = f" {group.restarts + 1} times" if code < 0 and group.restarts else ""
        reason = f"its process {how}{times}" + ("" if code < 0 else " before the run had ended")
        # What ends a process of ours without a word is not ours: most likely, its environment.
        exit_code = ExitCode.QUORUM_LOST if code < 0 else ExitCode.ENVIRONMENT
        for index in cut_off:
            self._roll.lose(Loss(index, exit_code, reason, self.log_path(group.name)))
        if cut_off:
            log.warning("%s: %s; see %s", name_agents(cut_off), reason, self.log_path(group.name))

    def _check_quorum(self) -> None:
        """Ask the server, every other second, whether the open round can still reach its quorum."""
        now_s = time.monotonic()
        if now_s - self._asked_s < ASK_EVERY_S or self.held_down:
            return
        self._asked_s = now_s
        try:
            status = fetch_status(self.address, self.tls(SERVER), STATUS_TIMEOUT_S)
        except (UnreachableError, RefusedError) as error:
            log.debug("no status: %s", error)  # the server starts, ends or comes back
            if self._roll.is_everybody_gone and now_s - self._answered_s > SILENT_MAX_S:
                self._roll.check_quorum(0, ())
            return
        self._answered_s = now_s
        try:
            self._roll.check_status(status)
            self._is_lost = False
        except AgentsLostError:
            if self._is_lost:
                raise
            self._is_lost = True  # the others are given until the next look, so that the sentence names them as well

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
            allow=trusting(federation.task_of(index)),
            module_folder=federation.task.module_folder,
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


def name_of_signal(number: int) -> str:
    """A signal as people know it, for example SIGSEGV."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def last_words(path: Path, exit_code: int) -> str:
    """The sentence with which a process failed, or what its exit code or its log tells of it, and where to look."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    except OSError:
        lines = []
    if exit_code < 0:
        return f"it was killed by {name_of_signal(-exit_code)} again and again; see {path}"
    sentences = [line for line in lines if line.startswith("fedpg-")]
    if sentences and exit_code != ExitCode.BUG:
        return sentences[-1]
    if exit_code == ExitCode.STORAGE:
        return f"it could write neither its store nor its log {path}: is the disk full?"
    if exit_code == ExitCode.BUG:
        return lines[-1] if any(line.startswith("Traceback") for line in lines) else f"see {path}"
    return f"it ended with exit status {exit_code}: see {path}"
