"""The protocol's rules as a pure state machine: events and the time go in, effects come out.

No I/O, no clock, no threads. Its drivers are a run (`fedpg_server.run`) and simulators in tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.verdicts import Verdict

from fedpg_server.events import (
    Answer,
    CloseRound,
    CountVerdict,
    Effect,
    Event,
    Joined,
    Left,
    RoundImproved,
    RoundOpened,
    RunEnded,
    Seen,
    StoreConflict,
    StoreVote,
    Submitted,
    Tick,
    WakeAt,
    Warn,
)


class Phase(IntEnum):
    """As `Phase` in federation.proto, with its numbers."""

    COLLECTING = pb.PHASE_COLLECTING
    BELOW_QUORUM = pb.PHASE_BELOW_QUORUM
    IMPROVING = pb.PHASE_IMPROVING
    ENDED = pb.PHASE_ENDED


class Presence(IntEnum):
    """As `AgentStatus.Presence` in federation.proto, with its numbers."""

    NEVER_SEEN = pb.AgentStatus.PRESENCE_NEVER_SEEN
    JOINED = pb.AgentStatus.PRESENCE_JOINED
    LEFT = pb.AgentStatus.PRESENCE_LEFT


@dataclass(frozen=True)
class Rules:
    """What the coordinator has to know of the federation: nothing of who is Byzantine."""

    agents: int
    quorum: int
    round_timeout_s: float


# State ----------------------------------------------------------------------------------------------------------------


@dataclass
class Member:
    """What the coordinator knows of one agent."""

    presence: Presence = Presence.NEVER_SEEN
    last_seen_s: float | None = None
    last_vote_round: int = 0
    last_verdict: Verdict | None = None
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    rounds_accepted: int = 0
    rounds_filtered: int = 0
    calls: int = 0
    """Of this process, like the next one."""
    polls_cut: int = 0


class Coordinator:
    """One vote per agent and round; a round closes when all K have voted, or at its deadline with a quorum."""

    def __init__(
        self,
        rules: Rules,
        members: Mapping[int, Member] | None = None,
        intrusions: int = 0,
        round_number: int = 0,
        votes: Mapping[int, bytes] | None = None,
    ) -> None:
        """Start with no round open. The optional arguments continue an earlier process: its counts, its last round.

        `votes` are the digests of that round's votes by agent, so that a repeated submission is known for what it is.
        """
        self.rules = rules
        self.members = {index: Member() for index in range(1, rules.agents + 1)} | dict(members or {})
        self.intrusions = intrusions
        self.unreadable = 0
        """Requests that did not arrive whole or were no message; this process's."""
        self.connections_closed = 0
        """Connections that were too many for one caller, or made no call in time; this process's."""
        self.phase = Phase.IMPROVING
        self.round_number = round_number
        self.parameters_digest = b""
        self.votes = dict(votes or {})
        self.deadline_s = 0.0

    def step(self, event: Event, now_s: float) -> list[Effect]:
        """Take one event at the monotonic time `now_s`. Never raises for anything that an agent can cause."""
        match event:
            case Submitted():
                return self._submitted(event, now_s)
            case Seen(agent):
                return self._seen(agent, now_s)
            case Joined(agent):
                return self._seen(agent, now_s, Presence.JOINED)
            case Left(agent):
                return self._seen(agent, now_s, Presence.LEFT)
            case RoundOpened():
                return self._round_opened(event, now_s)
            case RoundImproved():
                return self._round_improved(event)
            case RunEnded():
                self.phase = Phase.ENDED
                return []
            case Tick():
                return self._tick(now_s)

    def _round_opened(self, event: RoundOpened, now_s: float) -> list[Effect]:
        self.phase = Phase.IMPROVING if event.closed else Phase.COLLECTING
        self.round_number = event.round_number
        self.parameters_digest = event.parameters_digest
        self.votes = dict(event.votes)
        self.deadline_s = now_s + self.rules.round_timeout_s
        return [WakeAt(self.deadline_s), *self._close_if_due(now_s)]

    def _tick(self, now_s: float) -> list[Effect]:
        if self.phase is Phase.COLLECTING and now_s < self.deadline_s:
            return [WakeAt(self.deadline_s)]  # the timer fired early, or it was an earlier round's
        return self._close_if_due(now_s)

    def _round_improved(self, event: RoundImproved) -> list[Effect]:
        for agent in event.accepted:
            self.members[agent].rounds_accepted += 1
        for agent in event.filtered:
            self.members[agent].rounds_filtered += 1
        return []

    def _seen(self, agent: int, now_s: float, presence: Presence | None = None) -> list[Effect]:
        member = self.members.get(agent)
        if member is None:
            return []
        member.last_seen_s = now_s
        member.calls += 1
        if presence is not None:
            member.presence = presence
        elif member.presence is Presence.NEVER_SEEN:  # it goes on after a restart of the server, without a new Join
            member.presence = Presence.JOINED
        return []

    def _submitted(self, event: Submitted, now_s: float) -> list[Effect]:
        verdict = self._judge(event)
        self._seen(event.agent, now_s)
        self._count(event.agent, verdict)
        if verdict is Verdict.ACCEPTED:
            self.votes[event.agent] = event.digest
            self.members[event.agent].last_vote_round = event.round_number
            return [
                StoreVote(event.ticket, event.agent, event.round_number, event.digest),
                Answer(event.ticket, verdict),
                *self._close_if_due(now_s),
            ]
        effects: list[Effect] = [CountVerdict(event.agent if event.agent in self.members else 0, verdict)]
        if verdict is Verdict.CONFLICT:
            effects.append(StoreConflict(event.agent, event.round_number, event.digest))
        return [*effects, Answer(event.ticket, verdict)]

    def _count(self, agent: int, verdict: Verdict) -> None:
        if agent in self.members:
            self.members[agent].last_verdict = verdict
            self.members[agent].verdicts[verdict] += 1
        else:
            self.intrusions += 1

    def count_cut_poll(self, agent: int) -> None:
        """Count a long poll of a member that was answered early because it held too many."""
        self.members[agent].polls_cut += 1

    def _judge(self, event: Submitted) -> Verdict:
        """The verdict, most telling reason first. The stored vote is looked at before anything may reject it."""
        if event.agent not in self.members:
            return Verdict.NOT_A_MEMBER
        if event.defect is not None:
            return event.defect
        is_current = event.round_number == self.round_number
        earlier = self.votes.get(event.agent) if is_current else event.stored
        if earlier is not None:
            return Verdict.DUPLICATE if earlier == event.digest else Verdict.CONFLICT
        if self.phase is Phase.ENDED:
            return Verdict.RUN_ENDED
        if event.round_number > self.round_number:
            return Verdict.UNKNOWN_ROUND
        if not is_current or self.phase is Phase.IMPROVING:
            return Verdict.STALE_ROUND
        if event.parameters_digest != self.parameters_digest:
            return Verdict.WRONG_PARAMETERS
        return Verdict.ACCEPTED

    def _close_if_due(self, now_s: float) -> list[Effect]:
        if self.phase not in (Phase.COLLECTING, Phase.BELOW_QUORUM):
            return []
        is_complete = len(self.votes) == self.rules.agents
        is_past_deadline = now_s >= self.deadline_s
        if is_complete or (is_past_deadline and len(self.votes) >= self.rules.quorum):
            self.phase = Phase.IMPROVING
            return [CloseRound(self.round_number, tuple(sorted(self.votes)))]
        if is_past_deadline and self.phase is Phase.COLLECTING:
            self.phase = Phase.BELOW_QUORUM
            return [Warn(f"round {self.round_number} is past its deadline and waits: {self.waiting_for()}")]
        return []

    def absent(self) -> list[int]:
        """Agents that have not voted in the latest round, in order."""
        return [agent for agent in self.members if agent not in self.votes]

    def waiting_for(self) -> str:
        """What the run waits for, in one sentence for people."""
        if self.phase is Phase.ENDED:
            return "the run has ended"
        if self.phase is Phase.IMPROVING:
            return "the server improves the policy"
        missing = self.rules.quorum - len(self.votes)
        names = shorten(self.absent())
        if self.phase is Phase.BELOW_QUORUM:
            return f"{missing} more of the agents {names} must submit for a quorum of {self.rules.quorum}"
        return f"waiting for agents {names}"


def shorten(agents: Iterable[int], limit: int = 10) -> str:
    """Agent indices for people, cut after `limit`: "1, 2, 3 and 7 more"."""
    indices = list(agents)
    shown = ", ".join(map(str, indices[:limit]))
    return shown if len(indices) <= limit else f"{shown} and {len(indices) - limit} more"
