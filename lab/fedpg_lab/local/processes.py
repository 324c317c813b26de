"""A federation of local processes: one server, and the agents spread over as many processes as wanted."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from fedpg_common.choices import Choice
from fedpg_common.errors import ExitCode, FedPGError, RefusedError, UnreachableError
from fedpg_common.federation import Federation
from fedpg_common.modules import make_importable
from fedpg_common.transport.channels import TlsFiles
from fedpg_server.server import SHIPPED_OBSERVERS, ServerOptions

from fedpg_lab.local.agent_setup import agent_options
from fedpg_lab.local.agents import RESTARTS_MAX, AgentProcesses
from fedpg_lab.local.children import end, server_main, spawn
from fedpg_lab.local.failures import (
    AgentsLostError,
    ProcessFailedError,
    last_words,
    name_of_signal,
    was_ended_by_others,
)
from fedpg_lab.local.fork_server import fork_server
from fedpg_lab.local.roll import Roll
from fedpg_lab.local.status import fetch_status
from fedpg_lab.runs.folders import load_run

SERVER = "server"
LOG_FOLDER = "logs"
ASK_EVERY_S = 1.0
STATUS_TIMEOUT_S = 2.0
SILENT_MAX_S = 30.0
"""How long a server may not answer while no agent is left."""
SERVER_STOP_S = 20.0
"""More than it takes a server to store what it has answered, and to leave an environment that does not return."""

log = logging.getLogger(__name__)


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
    threads: int | None = None
    """Of the server, which computes while the agents wait; None for the cores of this machine."""
    tls: Tls = lambda _name: None
    way_to_server: Callable[[int, str], str] = lambda _agent, address: address
    """Under which address an agent reaches the server at that address."""
    restarts_failures: bool = False
    """Whether an agent that ended with an error of its own is started again, and not only one that was killed."""
    needs_everybody: bool = False
    """Whether the run fails as soon as an agent that is to vote in every round has failed for good, or misses one."""
    trajectories: int | None = None
    """Where a resumed run is to end, if not where its description says."""
    adam_from: Path | None = None
    """The run folder whose Adam state a new run starts with, see `ServerOptions`."""
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
        self._agents = AgentProcesses(self._context, self._roll, self.log_path, self.restarts_failures)
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

        Raises ProcessFailedError when the server ended with an error of its own, or too often, or an agent because its
        attack or its world cannot be used; AgentsLostError when so many agents ended, or were refused, that the open
        round cannot reach its quorum any more.
        """
        code = self._server.exitcode  # first, so that all is read that it told before it ended
        self._listen_to_server()
        if code == ExitCode.OK and self._is_run_ended:
            return False
        if code is not None and SERVER not in self.held_down:
            if code >= 0 and self._is_complete():
                log.warning("the server ended with exit status %d, but after the run had ended; see %s",
                            code, self.log_path(SERVER))  # fmt: skip
                return False
            self._mend_server(code)
        self._agents.look_after(self.held_down)
        self._roll.check_parts()
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
        """Who is gone or waits for an environment, for the display; empty while all is well."""
        server = [f"the server: {self._server_waits}"] if self._server_waits else []
        return "; ".join([*server, *self._roll.notes()])

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process, unless it has ended. May be called from any thread."""
        process = self._process(name)
        # `is_alive` fetches the exit status, once and for all: of two threads that do so one would make it 255.
        if process.pid is not None and not wait([process.sentinel], 0):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(process.pid, number)

    def start_again(self, name: str) -> None:
        """Start a process that has ended; the server resumes. Waits for it to end, if it is still about to."""
        self._process(name).join()
        if name == SERVER:
            if self._server.exitcode != ExitCode.OK:
                self._server = self._start_server(resume=True)
            return
        self._agents.start_again(name)

    def _process(self, name: str) -> ForkServerProcess:
        return self._server if name == SERVER else self._agents.process(name)

    def wait_for_end(self, patience_s: float) -> None:
        """Wait so long at most for the server's process to end."""
        self._server.join(patience_s)

    def wait_for_agents(self, patience_s: float) -> None:
        """Let the agents end by themselves after the run."""
        self._agents.wait(patience_s)

    @property
    def server_pid(self) -> int:
        """The server's process id."""
        assert self._server.pid is not None
        return self._server.pid

    @property
    def agent_pids(self) -> list[int]:
        """The agents' process ids."""
        return self._agents.pids

    @property
    def restarts(self) -> int:
        """How often a process was started again."""
        return self._server_restarts + self._agents.restarts

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
            adam_from=None if resume else self.adam_from,
            observers=self.observers,
            threads=self.threads,
            tls=self.tls(SERVER),
        )
        server = spawn(self._context, SERVER, self.log_path(SERVER), server_main, options, sender)
        sender.close()
        try:
            kind, text = "waits", ""
            while kind == "waits":  # for an environment that is being made, most likely
                if text:
                    log.warning("the server: %s", text)
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
        self._server_tells, self._is_run_ended, self._server_waits = receiver, False, ""
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
        self._agents.start(everyone, self.agents_per_process)

    def _listen_to_server(self) -> None:
        """Take down what it waits for, and whether it said that the run has ended before it ended itself.

        With exit status 0, other things may have ended it.
        """
        while not self._is_run_ended and self._server_tells.poll():
            try:
                kind, text = self._server_tells.recv()
            except (EOFError, OSError):
                break
            if kind == "waits":
                self._server_waits = text
            self._is_run_ended = kind == "ended"

    def _is_complete(self) -> bool:
        """Whether the store has every round, whatever happened to its server afterwards."""
        try:
            return load_run(self.folder).is_complete
        except FedPGError:
            return False

    def _mend_server(self, code: int) -> None:
        self._server_restarts += 1
        log_path = self.log_path(SERVER)
        if was_ended_by_others(log_path, code):
            what = f"the server's process ended with exit status {code} before the run had ended"
            by = "most likely an environment, or another part of yours, has ended it"
            raise ProcessFailedError(f"{what}: {by}; see {log_path}", ExitCode.ENVIRONMENT)
        if code > 0 or self._server_restarts > RESTARTS_MAX:
            words = last_words(log_path, code)
            where = "" if str(log_path) in words else f"; see {log_path}"
            raise ProcessFailedError(f"the server failed: {words}{where}", code)
        log.warning("the server was killed by %s: resuming", name_of_signal(-code))
        self._server = self._start_server(resume=True)

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
        self._agents.end_all()
        end(self._server, SERVER_STOP_S)
