"""Looking after a federation that is harmed, and waiting for what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from fedpg.v1 import federation_pb2 as pb
from fedpg_lab.faults.backend import Backend, Fault, FaultKind

PATIENCE_S = 120.0
"""It ends a test that would otherwise hang."""
STILL_S = 1.0
"""How long a round of some milliseconds is seen to make no progress before it counts as standing still."""
STALLING = [
    Fault(FaultKind.KILL, (2,)),
    Fault(FaultKind.STOP, (2, 3)),
    Fault(FaultKind.PAUSE, (1,)),
    Fault(FaultKind.PARTITION, (1, 2)),
    Fault(FaultKind.BLACK_HOLE, (3,)),
    Fault(FaultKind.RESET, (1, 3)),
]
"""Faults on agents of three that no round can do without."""

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

    def stands_still_for(self, agents: tuple[int, ...]) -> None:
        """Wait until one round waits for some of these agents and no others, for a while by the server's clock.

        It need not wait for all of them: who was hit may have voted just before. The while tells a round that stands
        still from one that goes on.
        """
        round_number, since_s = 0, 0.0

        def is_stuck(status: pb.GetStatusReply) -> bool:
            nonlocal round_number, since_s
            missing = {entry.agent for entry in status.agents if not entry.voted}
            if status.round != round_number or not missing or not missing <= set(agents):
                round_number, since_s = status.round, status.uptime_s
            return status.uptime_s - since_s >= STILL_S

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
