"""Looking after a federation that is harmed, and waiting for what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from fedpg.v1 import federation_pb2 as pb
from fedpg_lab.faults.backend import Backend

PATIENCE_S = 120.0
"""It ends a test that would otherwise hang."""
STILL_SEEN = 5
"""How many different replies tell of the same round before it counts as stuck."""

Harmed = TypeVar("Harmed", bound=Backend)


class Watch(Generic[Harmed]):
    """A federation under a backend, looked after while something is waited for."""

    def __init__(self, backend: Harmed) -> None:
        self.backend = backend

    def until(self, condition: Callable[[pb.GetStatusReply], bool]) -> pb.GetStatusReply:
        """Wait for it."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            assert self.backend.supervise(), "the run has ended too early"
            status = self.backend.status()
            if status is not None and condition(status):
                return status
            assert time.monotonic() < deadline_s, f"waited in vain: {status}"
            time.sleep(0.01)

    def rounds(self, count: int) -> None:
        """Wait until so many rounds more have closed."""
        goal = self.until(lambda _status: True).latest.round + count
        self.until(lambda status: status.latest.round >= goal)

    def stalls_for(self, agents: tuple[int, ...]) -> None:
        """Wait until a round waits for these agents and no others."""
        self.until(lambda status: {entry.agent for entry in status.agents if not entry.voted} == set(agents))

    def stands_still_for(self, agents: tuple[int, ...]) -> None:
        """Wait until a round waits for some of these agents and no others, time and again.

        Who is hit last may have voted before. That the same round is seen so often tells it from one that goes on.
        """
        seen: set[bytes] = set()
        round_number = 0

        def is_stuck(status: pb.GetStatusReply) -> bool:
            nonlocal round_number
            missing = {entry.agent for entry in status.agents if not entry.voted}
            if status.round != round_number or not missing or not missing <= set(agents):
                round_number = status.round
                seen.clear()
            seen.add(status.SerializeToString())
            return len(seen) > STILL_SEEN

        self.until(is_stuck)

    def is_silent(self) -> None:
        """Wait until the server gives no answer."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.backend.status() is not None:
            assert time.monotonic() < deadline_s, "the server answers"
            time.sleep(0.01)

    def to_the_end(self) -> None:
        """Wait for the end of the run."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.backend.supervise():
            assert time.monotonic() < deadline_s, "the run does not end"
            time.sleep(0.01)
