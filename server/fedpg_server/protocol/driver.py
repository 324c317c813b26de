"""The coordinator's driver in a real run: events go in as they happen, and the effects are carried out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from fedpg_server.protocol import events
from fedpg_server.protocol.coordinator import Coordinator
from fedpg_server.protocol.journal import Journal
from fedpg_server.storage.rows import RecalledRound, Row

log = logging.getLogger(__name__)


class Driver:
    """Steps a coordinator at the time of a clock. For the event loop alone."""

    def __init__(
        self,
        coordinator: Coordinator,
        commit: Callable[[Sequence[Row]], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """`commit` writes rows in one transaction; `clock` gives monotonic seconds."""
        self.coordinator = coordinator
        self.journal = Journal(commit, self._carry_out)
        self.round_closed = asyncio.Event()
        """Whether the round that was opened last takes no more votes. Its votes are on disk, or on their way there."""
        self._clock = clock
        self._wake: asyncio.TimerHandle | None = None

    def feed(self, event: events.Event) -> None:
        """Step the coordinator, and have its effects carried out soon."""
        self.journal.add(self.coordinator.step(event, self._clock()))

    def open_round(self, number: int, parameters_digest: bytes, known: RecalledRound) -> None:
        """Begin a round with what an earlier process collected of it."""
        self.journal.ballots = known.ballots
        self.round_closed.clear()
        self.feed(events.RoundOpened(number, parameters_digest, known.digests, known.is_closed))

    def now_s(self) -> float:
        """The clock's time, which the coordinator's times are of."""
        return self._clock()

    def _carry_out(self, effect: events.Effect) -> None:
        """What is left of an effect once it is stored and answered."""
        match effect:
            case events.CloseRound():
                self.round_closed.set()
            case events.WakeAt(time_s):
                self._wake_at(time_s)
            case events.Warn(message):
                log.warning(message)

    def _wake_at(self, time_s: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        delay_s = max(0.0, time_s - self._clock())
        self._wake = asyncio.get_running_loop().call_later(delay_s, self.feed, events.Tick())
