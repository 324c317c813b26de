"""A coordinator on a virtual clock, driven by hand: what the tests of its promises share."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from fedpg_common.transport.verdicts import Verdict
from fedpg_server.protocol.coordinator import Coordinator, Rules
from fedpg_server.protocol.events import (
    Answer,
    CloseRound,
    Effect,
    Event,
    Joined,
    RoundImproved,
    RoundOpened,
    Seen,
    StoreVote,
    Submitted,
    Tick,
    WakeAt,
)

ROUND_TIMEOUT_S = 60.0
K = 5
QUORUM = 3


def digest_of(content: str) -> bytes:
    """A gradient's digest."""
    return sha256(content.encode()).digest()


def parameters_of(round_number: int) -> bytes:
    """The digest of a round's parameters."""
    return digest_of(f"parameters {round_number}")


class Driver:
    """Plays the part of the store and the service: keeps what is to be stored, notes what is answered."""

    def __init__(self, coordinator: Coordinator | None = None, *, joined: bool = True) -> None:
        """A federation of K agents, or a coordinator of one's own; its agents have joined, or nobody has."""
        self.coordinator = coordinator or Coordinator(Rules(K, QUORUM, ROUND_TIMEOUT_S))
        self.now_s = 0.0
        self.tickets = 0
        self.stored: dict[tuple[int, int], bytes] = {}
        self.closed: dict[int, tuple[int, ...]] = {}
        self.wake_at_s: float | None = None
        if joined:
            self.join(*self.coordinator.members)

    def join(self, *agents: int) -> None:
        """Agents join, one after the other, at once, and are ready for a round."""
        for agent in agents:
            self.step(Joined(agent))
            self.step(Seen(agent))

    def step(self, event: Event) -> list[Effect]:
        """Take an event now and do what the effects ask, in their order.

        Asserts that votes never change, that a vote is stored before it is answered, and that a round closes once.
        """
        effects = self.coordinator.step(event, self.now_s)
        answered = False
        for effect in effects:
            match effect:
                case Answer():
                    answered = True
                case StoreVote(_, agent, round_number, digest):
                    assert (round_number, agent) not in self.stored, "a vote was replaced"
                    assert not answered, "a vote was answered before it was stored"
                    self.stored[round_number, agent] = digest
                case CloseRound(round_number, voters):
                    assert round_number not in self.closed, "a round was closed twice"
                    self.closed[round_number] = voters
                case WakeAt(time_s):
                    self.wake_at_s = time_s
        return effects

    def open(self, round_number: int, votes: Mapping[int, bytes] | None = None, closed: bool = False) -> list[Effect]:
        """Open a round."""
        return self.step(RoundOpened(round_number, parameters_of(round_number), votes or {}, closed))

    def submit(
        self,
        agent: int,
        round_number: int,
        content: str = "gradient",
        parameters: bytes | None = None,
        defect: Verdict | None = None,
    ) -> Verdict:
        """Submit, with the stored vote looked up as the service does; returns the answer."""
        self.tickets += 1
        is_earlier = round_number < self.coordinator.round_number
        event = Submitted(
            ticket=self.tickets,
            agent=agent,
            round_number=round_number,
            parameters_digest=parameters_of(round_number) if parameters is None else parameters,
            digest=digest_of(content),
            defect=defect,
            stored=self.stored.get((round_number, agent)) if is_earlier else None,
        )
        answers = [effect for effect in self.step(event) if isinstance(effect, Answer)]
        assert [answer.ticket for answer in answers] == [self.tickets], "one call, one answer"
        return answers[0].verdict

    def improve(self, round_number: int) -> None:
        """Tell that the learner is done with a round, everyone accepted."""
        self.step(RoundImproved(round_number, accepted=self.closed[round_number], filtered=()))

    def pass_time(self, seconds: float) -> list[Effect]:
        """Let time pass; the timer fires if it was set to."""
        self.now_s += seconds
        if self.wake_at_s is None or self.now_s < self.wake_at_s:
            return []
        self.wake_at_s = None
        return self.step(Tick())
