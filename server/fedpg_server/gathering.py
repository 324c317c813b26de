"""Time that is fair to agents: when the clock of the first round starts, and what a paused server makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

GRACE_MAX_S = 10.0
"""How long, at most, the first round's clock waits for one more agent to join once a quorum has."""
LATE_S = 0.25
"""A timer that fires later than this shows that the process stood still."""


@dataclass
class Deadline:
    """A time that may have passed unseen: a process that stood still has to read first what has arrived meanwhile.

    A look that comes much later than the deadline moves it on, by as much as the look is late, but by no more than
    `extension_max_s`. What has arrived in the meantime is then read before anybody is judged to be late.
    """

    at_s: float
    extension_max_s: float

    def has_passed(self, now_s: float) -> bool:
        """Whether it has passed. May move it; look at it at `at_s` then."""
        late_s = now_s - self.at_s
        if late_s > LATE_S:
            self.at_s = now_s + min(late_s, self.extension_max_s)
            return False
        return late_s >= 0.0


@dataclass
class Gathering:
    """Who is there since this server process started, and whether that is enough to start a round's clock.

    The clock starts when all are there, or a quorum is and nobody new has come for a grace period.
    """

    agents: int
    quorum: int
    grace_s: float
    present: set[int] = field(default_factory=set)
    is_over: bool = False
    _ever: set[int] = field(default_factory=set)
    _deadline: Deadline | None = None

    def come(self, agent: int, now_s: float) -> None:
        """An agent is there. Only one that has not been there before makes the others wait for longer."""
        self.present.add(agent)
        if agent not in self._ever:
            self._ever.add(agent)
            self._deadline = Deadline(now_s + self.grace_s, self.grace_s)

    def go(self, agent: int) -> None:
        """An agent has gone."""
        self.present.discard(agent)

    def is_complete(self, now_s: float) -> bool:
        """Whether the clock may start; once it may, it may for good."""
        if not self.is_over and len(self.present) >= self.quorum:
            assert self._deadline is not None
            self.is_over = len(self.present) == self.agents or self._deadline.has_passed(now_s)
        return self.is_over

    @property
    def due_s(self) -> float | None:
        """When to look again; None as long as there is no quorum."""
        if len(self.present) < self.quorum or self._deadline is None:
            return None
        return self._deadline.at_s
