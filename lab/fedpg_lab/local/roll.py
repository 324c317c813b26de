"""Who is lost to a local federation, and whether a quorum can still vote: nothing is started again by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedpg.v1 import federation_pb2 as pb
from fedpg_client.attacks import build_attacker
from fedpg_client.fates import Ended, Fate, Refused, Waits
from fedpg_common.errors import ExitCode
from fedpg_common.federation import Federation
from fedpg_server.protocol.situation import name_agents

from fedpg_lab.local.failures import AgentsLostError, ProcessFailedError

REASONS_SHOWN = 3
OPEN = (pb.PHASE_JOINING, pb.PHASE_COLLECTING, pb.PHASE_BELOW_QUORUM)


@dataclass(frozen=True)
class Loss:
    """Why an agent has no vote, for good or in one round."""

    agent: int
    code: ExitCode
    reason: str
    log: Path | None = None


class Roll:
    """What has become of each agent, as far as it is known here."""

    def __init__(self, federation: Federation) -> None:
        """Everybody is there, though some attackers never vote."""
        self._federation = federation
        self.gone: dict[int, Loss] = {}
        """Agents that ended before the run did, in the order in which that was noticed."""
        self.waits: dict[int, str] = {}
        """What agents have been waiting for long."""
        self._done: set[int] = set()
        self._refused: dict[int, tuple[Refused, Path]] = {}
        self._mute = {
            agent: Loss(agent, ExitCode.QUORUM_LOST, f"{misconduct.label} does not vote")
            for agent, misconduct in federation.byzantine.items()
            if not build_attacker(misconduct).attack.casts_vote
        }

    def note(self, fate: Fate, log: Path) -> None:
        """Take down what an agent's process told; `log` is where it writes."""
        match fate:
            case Refused(agent):
                self._refused[agent] = fate, log
            case Waits(agent, what):
                self._wait(agent, what)
            case Ended(agent, ExitCode.OK):
                self._done.add(agent)
            case Ended(agent, code, reason):
                self.lose(Loss(agent, code, reason, log))

    def lose(self, loss: Loss) -> None:
        """An agent is gone for good."""
        self._wait(loss.agent, "")
        self.gone[loss.agent] = loss

    def take_back(self, agents: Iterable[int]) -> None:
        """These agents are started again."""
        for agent in agents:
            self.gone.pop(agent, None)
            self._refused.pop(agent, None)

    def forget_waits(self, agents: Iterable[int]) -> None:
        """These agents wait in no environment: their process has ended."""
        for agent in agents:
            self.waits.pop(agent, None)

    def _wait(self, agent: int, what: str) -> None:
        """Take down what an agent waits for; nothing for one that waits no more."""
        self.waits.pop(agent, None)
        if what:
            self.waits[agent] = what

    def notes(self) -> list[str]:
        """Who is gone, and who waits for an environment, each with what that means for the rounds."""
        notes = []
        if self.gone:
            many = len(self.gone) > 1
            who = f"{name_agents(self.gone)} {'are' if many else 'is'} gone"
            logs = [loss.log for loss in self.gone.values() if loss.log is not None]
            see = f"; see {logs[0]}" if logs else ""
            timeout_s = self.round_timeout_s
            if not self.has_quorum:
                notes.append(f"{who}: too few are left for the quorum of {self._federation.quorum}{see}")
            else:
                notes.append(f"{who}: each round waits {timeout_s:g} s for the missing vote{'s' * many}{see}")
        alike: dict[str, list[int]] = {}
        for agent, what in sorted(self.waits.items()):
            alike.setdefault(what, []).append(agent)
        return [*notes, *(f"{name_agents(agents)}: {what}" for what, agents in alike.items())]

    def has_ended(self, agent: int) -> bool:
        """Whether the agent needs no process any more."""
        return agent in self._done or agent in self.gone

    def has_failed(self, agent: int) -> bool:
        """Whether the agent is gone, and might do better if it was started again."""
        return agent in self.gone and self.gone[agent].code is not ExitCode.USAGE

    @property
    def round_timeout_s(self) -> float:
        """How long a round waits for votes that do not come."""
        return self._federation.round_timeout_s

    @property
    def is_suspicious(self) -> bool:
        """Whether it is worth asking the server if a quorum can still vote."""
        return bool(self.gone or self._refused) or len(self._mute) > self._federation.agents - self._federation.quorum

    @property
    def has_quorum(self) -> bool:
        """Whether enough agents for a quorum are still there that vote."""
        return self._federation.agents - len(self.gone.keys() | self._mute.keys()) >= self._federation.quorum

    @property
    def is_everybody_gone(self) -> bool:
        """Whether no process is left that could vote."""
        return len(self.gone.keys() | self._mute.keys()) == self._federation.agents

    def check_parts(self) -> None:
        """Raise ProcessFailedError if an agent has ended because of what it was told to run: an attack, or its world.

        Those are the user's own, and fail again. Without it the run would be another one than was asked for.
        """
        unusable = [loss for loss in self.gone.values() if loss.code is ExitCode.USAGE]
        if unusable:
            first = unusable[0]
            alike = name_agents(sorted(loss.agent for loss in unusable if loss.reason == first.reason))
            raise ProcessFailedError(f"{alike}: {first.reason}", first.code)

    def check_quorum(self, round_number: int, voted: Iterable[int]) -> None:
        """Raise AgentsLostError if the open round cannot reach its quorum, with these votes, any more."""
        losses = self._losses(round_number)
        votes = set(voted)
        hopeful = set(range(1, self._federation.agents + 1)) - losses.keys() - votes
        if len(votes) + len(hopeful) >= self._federation.quorum:
            return
        lost = [losses[agent] for agent in losses if agent not in votes]
        which = f"round {round_number}" if round_number else "the open round"
        raise _error(f"{which} cannot reach its quorum of {self._federation.quorum}", lost, self._mute)

    def check_status(self, status: pb.GetStatusReply) -> None:
        """As `check_quorum`, with the votes that the server's status tells; of an open round alone."""
        if status.phase in OPEN:
            self.check_quorum(status.round, (agent.agent for agent in status.agents if agent.voted))

    def check_everybody(self) -> None:
        """Raise AgentsLostError if an agent that is to vote in every round has failed, or missed one."""
        losses = list(self._losses(None).values())
        lost = [loss for loss in losses if loss.agent not in self._mute]
        if lost:
            raise _error("not every agent can vote, and every round is to be complete", lost, {})

    def _losses(self, round_number: int | None) -> dict[int, Loss]:
        """Why agents have no vote in this round, or in any that they were refused in (None)."""
        refused = {
            agent: Loss(agent, ExitCode.QUORUM_LOST, fate.reason, log)
            for agent, (fate, log) in self._refused.items()
            if round_number in (None, fate.round_number)
        }
        return {**self.gone, **{agent: loss for agent, loss in refused.items() if agent not in self.gone}, **self._mute}


def _error(what: str, losses: list[Loss], by_design: Mapping[int, Loss]) -> AgentsLostError:
    """One sentence, and the exit code that the failures have in common."""
    groups: dict[str, list[int]] = {}
    for loss in losses:
        groups.setdefault(loss.reason, []).append(loss.agent)
    parts = [f"{name_agents(agents)}: {reason}" for reason, agents in list(groups.items())[:REASONS_SHOWN]]
    if rest := [agent for agents in list(groups.values())[REASONS_SHOWN:] for agent in agents]:
        parts.append(f"{name_agents(rest)}: for other reasons")
    logs = [loss.log for loss in losses if loss.log is not None]
    see = f"; see {logs[0]}" if logs else ""
    codes = {loss.code for loss in losses if loss.agent not in by_design}
    code = codes.pop() if len(codes) == 1 else ExitCode.QUORUM_LOST
    return AgentsLostError(f"{what}: {'; '.join(parts)}{see}", code)
