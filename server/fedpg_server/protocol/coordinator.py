"""The protocol's rules as a pure state machine: events and the time go in, effects come out.

No I/O, no clock, no threads. Its drivers are `fedpg_server.protocol.driver` and tests.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedpg_common.transport.verdicts import Verdict

from fedpg_server.protocol.events import (
    Answer,
    CloseRound,
    CountVerdict,
    Effect,
    Event,
    Failed,
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
from fedpg_server.protocol.gathering import Deadline, Gathering
from fedpg_server.protocol.membership import OPEN, Member, Phase, Presence, Rules, clean
from fedpg_server.protocol.situation import describe_situation

__all__ = ["Coordinator", "Member", "Phase", "Presence", "Rules"]

EXTENSION_MIN_S = 10.0
"""A server that stood still gives the agents up to that long, or up to a whole round's time if that is longer."""
REMIND_EVERY_S = 60.0
"""How often a run that waits for agents says so."""
LOOK_EVERY_S = 10.0
"""How soon after a change below the quorum it says what is new."""
LOST_FOR_THE_ROUND = (Verdict.WRONG_SHAPE, Verdict.NOT_FINITE, Verdict.TOO_LARGE, Verdict.WRONG_PARAMETERS)
"""An agent's draws are fixed: who was refused like that has nothing better to submit for the same round."""


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
        self.refused: dict[int, Verdict] = {}
        """Who cannot vote in the open round any more, and why."""
        self._gathering = Gathering(rules.agents, rules.quorum, rules.grace_s)
        self._deadline = Deadline(0.0, 0.0)
        self._wake_s: float | None = None
        self._waits_since: Phase | None = None
        self._said = ""
        self._said_s = self._look_s = 0.0

    def step(self, event: Event, now_s: float) -> list[Effect]:
        """Take one event at the monotonic time `now_s`. Never raises for anything that an agent can cause."""
        effects = self._take(event, now_s)
        self._start_clock(now_s)
        effects += self._close_if_due(now_s)
        effects += self._remind(now_s)
        wake_s = self._next_look_s()
        if wake_s is not None and (wake_s != self._wake_s or isinstance(event, Tick)):
            effects.append(WakeAt(wake_s))
        self._wake_s = wake_s
        return effects

    def _take(self, event: Event, now_s: float) -> list[Effect]:
        match event:
            case Submitted():
                return self._submitted(event, now_s)
            case Seen(agent):
                self._seen(agent, now_s)
            case Joined(agent):
                self._seen(agent, now_s, Presence.JOINED)
            case Left(agent):
                self._seen(agent, now_s, Presence.LEFT)
            case Failed(agent, why):
                self._seen(agent, now_s, Presence.FAILED, clean(why))
            case RoundOpened():
                self._round_opened(event, now_s)
            case RoundImproved():
                self._round_improved(event)
            case RunEnded():
                self.phase = Phase.ENDED
            case Tick():
                pass
        return []

    def _round_opened(self, event: RoundOpened, now_s: float) -> None:
        self.phase = Phase.IMPROVING if event.closed else Phase.JOINING
        self.round_number = event.round_number
        self.parameters_digest = event.parameters_digest
        self.votes = dict(event.votes)
        self.refused = {}
        for agent in self.votes:
            self._gathering.come(
                agent, now_s, is_ready=False
            )  # it voted before a restart of the server, so it is not far

    def _start_clock(self, now_s: float) -> None:
        """The open round's clock starts at once, but for a server's first round: there, once the agents have joined."""
        if self._gathering.is_complete(now_s) and self.phase is Phase.JOINING:
            self.phase = Phase.COLLECTING
            timeout_s = self.rules.round_timeout_s
            self._deadline = Deadline(now_s + timeout_s, max(timeout_s, EXTENSION_MIN_S))

    def _round_improved(self, event: RoundImproved) -> None:
        for agent in event.accepted:
            self.members[agent].rounds_accepted += 1
        for agent in event.filtered:
            self.members[agent].rounds_filtered += 1

    def _seen(self, agent: int, now_s: float, presence: Presence | None = None, failure: str = "") -> None:
        member = self.members.get(agent)
        if member is None:
            return
        member.last_seen_s = now_s
        member.calls += 1
        if presence is not None:
            member.presence, member.failure = presence, failure
        elif (
            member.presence is Presence.NEVER_SEEN
        ):  # it takes part again after a restart of the server, without a Join
            member.presence = Presence.JOINED
        if member.presence is Presence.JOINED:
            self._gathering.come(agent, now_s, is_ready=presence is None)
        elif agent not in self.votes:
            self._gathering.go(agent)

    def _submitted(self, event: Submitted, now_s: float) -> list[Effect]:
        verdict = self._judge(event)
        self._seen(event.agent, now_s)
        self._count(event.agent, verdict)
        if verdict is Verdict.ACCEPTED:
            self.votes[event.agent] = event.digest
            self.refused.pop(event.agent, None)
            self._gathering.come(event.agent, now_s, is_ready=True)
            self.members[event.agent].last_vote_round = event.round_number
            return [
                StoreVote(event.ticket, event.agent, event.round_number, event.digest),
                Answer(event.ticket, verdict),
            ]
        if verdict in LOST_FOR_THE_ROUND and self._could_vote(event):
            self.refused[event.agent] = verdict
        effects: list[Effect] = [CountVerdict(event.agent if event.agent in self.members else 0, verdict)]
        if verdict is Verdict.CONFLICT:
            effects.append(StoreConflict(event.agent, event.round_number, event.digest))
        return [*effects, Answer(event.ticket, verdict)]

    def _could_vote(self, event: Submitted) -> bool:
        is_open = self.phase in OPEN and event.round_number == self.round_number
        return is_open and event.agent in self.members and event.agent not in self.votes

    def _count(self, agent: int, verdict: Verdict) -> None:
        if agent in self.members:
            self.members[agent].last_verdict = verdict
            self.members[agent].verdicts[verdict] += 1
        else:
            self.intrusions += 1

    def count_intrusion(self, owner: int | None) -> list[Effect]:
        """Count a call whose certificate is not that of its sender; `owner` is the agent whose certificate it is."""
        self.intrusions += 1
        member = self.members.get(owner or 0)
        if member is not None:
            member.calls += 1
            member.verdicts[Verdict.NOT_A_MEMBER] += 1
        agent = 0 if member is None or owner is None else owner
        return [CountVerdict(agent, Verdict.NOT_A_MEMBER)]

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
        if self.phase not in OPEN:
            return []
        if len(self.votes) < self.rules.agents:
            if self.phase is Phase.JOINING or (self.phase is Phase.COLLECTING and not self._deadline.has_passed(now_s)):
                return []
            if len(self.votes) < self.rules.quorum:
                self.phase = Phase.BELOW_QUORUM
                return []
        self.phase = Phase.IMPROVING
        return [CloseRound(self.round_number, tuple(sorted(self.votes)))]

    def _remind(self, now_s: float) -> list[Effect]:
        """Below the quorum, say so at once, when that changes, and every minute; while agents join, every minute."""
        if self.phase not in (Phase.JOINING, Phase.BELOW_QUORUM):
            self._waits_since = None
            return []
        is_new = self._waits_since is not self.phase
        self._waits_since = self.phase
        if is_new:
            self._said, self._said_s, self._look_s = "", now_s, now_s
            if self.phase is Phase.JOINING:  # for some seconds that is how it should be
                self._look_s = now_s + REMIND_EVERY_S
        if now_s < self._look_s:
            return []
        self._look_s = now_s + (REMIND_EVERY_S if self.phase is Phase.JOINING else LOOK_EVERY_S)
        sentence = self.waiting_for()
        if sentence == self._said and now_s < self._said_s + REMIND_EVERY_S:
            return []
        self._said, self._said_s = sentence, now_s
        return [Warn(sentence)]

    def _next_look_s(self) -> float | None:
        """When a Tick is needed, if nothing else happens."""
        match self.phase:
            case Phase.COLLECTING:
                return self._deadline.at_s
            case Phase.BELOW_QUORUM:
                return self._look_s
            case Phase.JOINING:
                due_s = self._gathering.due_s
                return self._look_s if due_s is None else min(due_s, self._look_s)
        return None

    @property
    def deadline_s(self) -> float:
        """When the open round is due, while it collects."""
        return self._deadline.at_s

    def time_left_s(self, now_s: float) -> float:
        """Time until the open round's deadline; a whole round's before its clock has started, 0 once it has passed."""
        if self.phase is Phase.JOINING:
            return self.rules.round_timeout_s
        return max(0.0, self._deadline.at_s - now_s) if self.phase is Phase.COLLECTING else 0.0

    @property
    def present(self) -> frozenset[int]:
        """The agents that have joined or voted since this server process started, and have not left."""
        return frozenset(self._gathering.present)

    def absent(self) -> list[int]:
        """Agents that have not voted in the latest round, in order."""
        return [agent for agent in self.members if agent not in self.votes]

    def waiting_for(self) -> str:
        """What the run waits for, in one sentence for people."""
        return describe_situation(self)
