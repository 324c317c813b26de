"""What the store takes and gives besides the learner's state: votes, evidence, verdicts, closings."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedpg_common.learning.parameters import Vector
from fedpg_common.transport.verdicts import Verdict

from fedpg_server.learning.records import RoundRecord
from fedpg_server.learning.state import State


@dataclass(frozen=True, eq=False)
class Ballot:
    """What an agent submitted."""

    gradient: Vector
    """Shape (d,), read-only."""
    report: bytes
    """WorkReport message."""


@dataclass(frozen=True, eq=False)
class VoteRow:
    """An accepted submission."""

    round_number: int
    agent: int
    digest: bytes
    ballot: Ballot


@dataclass(frozen=True)
class ConflictRow:
    """Evidence of an equivocation."""

    round_number: int
    agent: int
    digest: bytes


@dataclass(frozen=True)
class VerdictRow:
    """One more verdict of a kind; an accepted submission has its VoteRow instead."""

    agent: int
    verdict: Verdict


@dataclass(frozen=True)
class ClosedRow:
    """The round takes no more votes."""

    round_number: int


@dataclass(frozen=True, eq=False)
class ImprovedRow:
    """A round whose evaluation is still to come: its record as far as that goes, and the state after it.

    With that on disk the next round may open.
    """

    record: RoundRecord
    state: State


@dataclass(frozen=True, eq=False)
class FinishedRow:
    """A round that has been evaluated."""

    record: RoundRecord
    state: State | None = None
    """After it; None if an ImprovedRow has brought that."""


Row = VoteRow | ConflictRow | VerdictRow | ClosedRow | ImprovedRow | FinishedRow


@dataclass(frozen=True)
class RecalledRound:
    """What the store knows of a round that is taken up again."""

    digests: dict[int, bytes] = field(default_factory=dict)
    """Of the votes that are in already, by agent in order."""
    ballots: dict[int, Ballot] = field(default_factory=dict)
    """The same votes' content."""
    is_closed: bool = False
    """Whether the round takes no more votes."""
