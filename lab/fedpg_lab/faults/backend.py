"""The vocabulary of faults, and what a backend has to offer: the same for local processes and for containers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.errors import FedPGError

SERVER = 0
"""Stands for the server where participants are named by agent index."""


class FaultKind(StrEnum):
    """What can be done to a participant. A fault lasts until it is healed."""

    KILL = "kill"
    """SIGKILL; healed by starting it again."""
    STOP = "stop"
    """SIGTERM, which lets it say goodbye; healed by starting it again."""
    RESTART = "restart"
    """SIGTERM and a new start at once; there is nothing to heal."""
    PAUSE = "pause"
    """It stands still: no processor time, connections stay open."""
    PARTITION = "partition"
    """No packet passes between the participants named and all others; connections stay open."""
    BLACK_HOLE = "black-hole"
    """What the participant sends is swallowed; what it is sent still arrives."""
    LATENCY = "latency"
    """Everything that it sends or is sent takes `delay_s` longer, give or take up to `jitter_s`."""
    BANDWIDTH = "bandwidth"
    """No more than `bytes_per_s` pass each way."""
    LOSS = "loss"
    """That `fraction` of packets is lost; TCP sends them again, later."""
    CORRUPTION = "corruption"
    """That `fraction` of packets arrives with a wrong byte."""
    RESET = "reset"
    """Every connection is reset, and each new one that is tried."""
    SLOW_CPU = "slow-cpu"
    """It gets no more than that `fraction` of a core."""


@dataclass(frozen=True)
class Fault:
    """One fault on a set of participants, with all random choices made."""

    kind: FaultKind
    targets: tuple[int, ...]
    """Agent indices in order; SERVER among them stands for the server."""
    delay_s: float = 0.0
    """For LATENCY."""
    jitter_s: float = 0.0
    """For LATENCY; at most `delay_s`."""
    bytes_per_s: float = 0.0
    """For BANDWIDTH."""
    fraction: float = 0.0
    """For LOSS, CORRUPTION and SLOW_CPU, in (0, 1]."""


class UnsupportedFaultError(FedPGError):
    """This machine cannot make a fault that a scenario asks for; the text says what is missing."""


class Backend(Protocol):
    """A federation whose participants and network can be harmed. Every method may be called from one thread alone.

    The order is `check`, `start`, then `supervise` over and over with `apply` and `heal` in between, `finish`, `close`.
    `close` ends and removes everything, also after a failure in the middle, and may be called more than once.
    """

    def check(self, kinds: frozenset[FaultKind]) -> None:
        """Raise UnsupportedFaultError, before anything starts, if one of these cannot be made here."""

    def start(self) -> None:
        """Start the server and all agents. Raises FedPGError."""

    def supervise(self) -> bool:
        """Look after the processes. False once the server has ended well.

        What died of a fault stays dead until `heal`. Raises FedPGError for a process that failed by itself.
        """

    def status(self) -> pb.GetStatusReply | None:
        """The server's own status, asked from beside it, so that no network fault hides it; None without an answer."""

    def apply(self, fault: Fault) -> None:
        """Begin a fault. Faults on the same participant add up; the same kind twice: the later one holds."""

    def heal(self, fault: Fault) -> None:
        """End a fault that was applied. A fault on a participant that another fault keeps down is just forgotten."""

    def finish(self, folder: Path) -> None:
        """After the run has ended: see that its store and the logs lie in `folder`, a run folder."""

    def close(self) -> None:
        """End every process and remove what was made, proxies and rules of the network included."""
