"""Time that is fair to agents: when the clock of the first round starts, and what a paused server makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

GRACE_S = 10.0
"""How long the first round's clock waits for one more agent to come, once a quorum has joined."""
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

    An agent that has joined may still be making its environment; one that asks for a round, or votes, is ready. The
    clock starts when all agents are ready, or when a quorum has joined and for a grace period nobody else has joined
    or become ready.
    """

    agents: int
    quorum: int
    grace_s: float
    present: set[int] = field(default_factory=set)
    is_over: bool = False
    _ready: set[int] = field(default_factory=set)
    _ever: set[int] = field(default_factory=set)
    _deadline: Deadline | None = None

    def come(self, agent: int, now_s: float, is_ready: bool) -> None:
        """An agent is there. Only news makes the others wait for longer, so nobody can hold them up for ever."""
        is_news = agent not in self._ever or (is_ready and agent not in self._ready)
        self.present.add(agent)
        self._ever.add(agent)
        if is_ready:
            self._ready.add(agent)
        if is_news:
            self._deadline = Deadline(now_s + self.grace_s, self.grace_s)

    def go(self, agent: int) -> None:
        """An agent has gone."""
        self.present.discard(agent)

    def is_complete(self, now_s: float) -> bool:
        """Whether the clock may start; once it may, it may for good."""
        if not self.is_over and len(self.present) >= self.quorum:
            assert self._deadline is not None
            is_everybody_ready = len(self.present & self._ready) == self.agents
            self.is_over = is_everybody_ready or self._deadline.has_passed(now_s)
        return self.is_over

    @property
    def due_s(self) -> float | None:
        """When to look again; None as long as there is no quorum."""
        if len(self.present) < self.quorum or self._deadline is None:
            return None
        return self._deadline.at_s
