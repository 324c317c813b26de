"""What happened in a scenario: times in seconds since the first round was open, rounds as the server's status said."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from fedpg_lab.faults.timeline import HealReason, PlannedFault


class Ending(StrEnum):
    """How a scenario ended."""

    ENDED = "ended"
    """The run reached its end."""
    INTERRUPTED = "interrupted"
    """Ctrl-C, or terminated."""
    OUT_OF_TIME = "out of time"
    """The scenario's `at_most_s` was over."""
    FAILED = "failed"
    """A process failed by itself, or a fault could not be made or healed."""


@dataclass
class FaultSpan:
    """A fault that began."""

    planned: PlannedFault
    begin_s: float
    begin_round: int
    heal_s: float | None = None
    """None: not healed, which must not be."""
    heal_round: int | None = None
    reason: HealReason | None = None


@dataclass
class Wait:
    """A time in which the run stood still."""

    begin_s: float
    end_s: float
    round_number: int


@dataclass
class History:
    """What was seen and done."""

    faults: list[FaultSpan] = field(default_factory=list)
    never_begun: list[PlannedFault] = field(default_factory=list)
    """The run ended before their time."""
    below_quorum: list[Wait] = field(default_factory=list)
    """The deadline was over and the quorum was not there."""
    silent: list[Wait] = field(default_factory=list)
    """The server gave no status."""
    opened_s: dict[int, float] = field(default_factory=dict)
    """When each round was first seen open; rounds may pass unseen between two looks."""
    told: set[tuple[int, str]] = field(default_factory=set)
    """Each closed round that the server reported, with the digest of its parameters."""
    ending: Ending = Ending.ENDED
    end_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    """A sentence for each thing that went wrong with the experiment itself."""


def note_wait(waits: list[Wait], is_waiting: bool, was_waiting: bool, now_s: float, round_number: int) -> None:
    """Begin a wait, or draw out the last one of `waits`."""
    if is_waiting and not was_waiting:
        waits.append(Wait(now_s, now_s, round_number))
    elif was_waiting:
        waits[-1].end_s = now_s
