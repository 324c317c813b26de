"""The agents' processes of a local federation: started, looked after, started again when they are killed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from fedpg_client.fates import Ended, Fate, Refused
from fedpg_client.process import AgentOptions
from fedpg_common.errors import ExitCode
from fedpg_server.protocol.situation import name_agents

from fedpg_lab.local.children import agents_main, end, spawn
from fedpg_lab.local.failures import name_of_signal
from fedpg_lab.local.roll import Loss, Roll

AGENT_STOP_S = 3.0
RESTARTS_MAX = 5

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


class AgentProcesses:
    """All agents of a federation, several to a process where that is wanted."""

    def __init__(
        self, context: ForkServerContext, roll: Roll, log_path: Callable[[str], Path], restarts_failures: bool
    ) -> None:
        """What becomes of agents goes to `roll`; with `restarts_failures`, those that failed are started again, too."""
        self._context = context
        self._roll = roll
        self._log_path = log_path
        self._restarts_failures = restarts_failures
        self._groups: list[_AgentGroup] = []
        self._told_refused: set[int] = set()

    def start(self, agents: Sequence[AgentOptions], per_process: int) -> None:
        """Start them all. Raises StorageError for a log that cannot be written."""
        for start in range(0, len(agents), per_process):
            group = agents[start : start + per_process]
            name = f"agent-{group[0].index}" + (f"-{group[-1].index}" if len(group) > 1 else "")
            process, telling = self._spawn(name, group)
            self._groups.append(_AgentGroup(name, group, process, telling))

    def look_after(self, held_down: Collection[str]) -> None:
        """Take down what the processes tell, and start again what was killed, except those that are `held_down`."""
        gone: dict[str, list[tuple[int, Path]]] = {}
        refused: dict[str, list[tuple[int, Path]]] = {}
        for group in self._groups:
            if group.is_over:
                continue
            for fate in self._look_after(group, group.name in held_down):
                noted = gone if isinstance(fate, Ended) else refused
                noted.setdefault(fate.reason, []).append((fate.agent, self._log_path(group.name)))
        level = logging.WARNING if self._roll.has_quorum else logging.INFO  # without one, the run fails with a sentence
        for reason, them in gone.items():
            names = name_agents([agent for agent, _ in them])
            log.log(level, "%s %s gone: %s; see %s", names, "are" if len(them) > 1 else "is", reason, them[0][1])
        for reason, them in refused.items():
            names, have = name_agents([agent for agent, _ in them]), "have" if len(them) > 1 else "has"
            log.log(level, "%s %s no vote: %s; a round in which that is so waits %g s (said once); see %s",
                    names, have, reason, self._roll.round_timeout_s, them[0][1])  # fmt: skip

    def start_again(self, name: str) -> None:
        """Start a process that has ended, for those of its agents that have not."""
        self._start_group(self._group(name))

    def process(self, name: str) -> ForkServerProcess:
        """The process of that name, for example "agent-3", or "agent-1-5" with several agents."""
        return self._group(name).process

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [group.process.pid for group in self._groups if group.process.pid is not None]

    @property
    def restarts(self) -> int:
        """How often one of them was started again after it had ended."""
        return sum(group.restarts for group in self._groups)

    def wait(self, patience_s: float) -> None:
        """Let them end by themselves, for so long in all."""
        deadline_s = time.monotonic() + patience_s
        for group in self._groups:
            group.process.join(max(0.0, deadline_s - time.monotonic()))

    def end_all(self) -> None:
        """End them, all at the same time."""
        for group in self._groups:
            if group.process.is_alive():
                group.process.terminate()
        deadline_s = time.monotonic() + AGENT_STOP_S
        for group in self._groups:
            end(group.process, max(0.0, deadline_s - time.monotonic()))

    def _group(self, name: str) -> _AgentGroup:
        return next(group for group in self._groups if group.name == name)

    def _spawn(self, name: str, agents: Sequence[AgentOptions]) -> tuple[ForkServerProcess, Connection]:
        receiver, sender = self._context.Pipe(duplex=False)
        process = spawn(self._context, name, self._log_path(name), agents_main, agents, sender)
        sender.close()
        return process, receiver

    def _start_group(self, group: _AgentGroup, also: Iterable[int] = ()) -> None:
        """Start a group's process again, for those of its agents that have not ended, and `also` for these."""
        group.telling.close()
        self._roll.take_back(also)
        left = [agent for agent in group.agents if not self._roll.has_ended(agent.index)]
        self._roll.forget_waits(agent.index for agent in left)
        group.process, group.telling = self._spawn(group.name, left)

    def _look_after(self, group: _AgentGroup, is_held_down: bool) -> list[Ended | Refused]:
        """Take down what a process tells of its agents, and start it again if it was killed.

        Gives what is worth a warning: those that failed, and are not started again, and the first refusal of each.
        """
        code = group.process.exitcode  # first, so that all is read that it told before it ended
        fates = list(group.fates())
        if is_held_down:
            return []
        for fate in fates:
            self._roll.note(fate, self._log_path(group.name))
        if code is not None:
            self._mend(group, code)
        # What ends the run (`Roll.check_parts`) is told as its error.
        untold = (ExitCode.OK, ExitCode.USAGE)
        news: list[Ended | Refused] = []
        for fate in fates:
            if isinstance(fate, Refused) and fate.agent not in self._told_refused:
                self._told_refused.add(fate.agent)
                news.append(fate)
            elif isinstance(fate, Ended) and fate.code not in untold and not self._restarts_failures:
                news.append(fate)
        return news

    def _mend(self, group: _AgentGroup, code: int) -> None:
        """Start again what ended, or take down that it is gone."""
        indices = [agent.index for agent in group.agents]
        cut_off = [index for index in indices if not self._roll.has_ended(index)]
        failed = [index for index in indices if self._roll.has_failed(index)]
        how = f"was killed by {name_of_signal(-code)}" if code < 0 else f"ended with exit status {code}"
        is_worth_it = (code < 0 and cut_off) or (self._restarts_failures and (cut_off or failed))
        if is_worth_it and group.restarts < RESTARTS_MAX:
            group.restarts += 1
            log.warning("%s %s: starting it again", group.name, how)
            self._start_group(group, also=failed if self._restarts_failures else ())
            return
        group.is_over = True
        times = f" {group.restarts + 1} times" if code < 0 and group.restarts else ""
        reason = f"its process {how}{times}" + ("" if code < 0 else " before the run had ended")
        # What ends a process of ours without a word is not ours: most likely, its environment.
        exit_code = ExitCode.QUORUM_LOST if code < 0 else ExitCode.ENVIRONMENT
        for index in cut_off:
            self._roll.lose(Loss(index, exit_code, reason, self._log_path(group.name)))
        if cut_off:
            log.warning("%s: %s; see %s", name_agents(cut_off), reason, self._log_path(group.name))
