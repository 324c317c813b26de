"""What can happen to a run, and what has to be done about it: the coordinator's events and effects.

Whoever drives the coordinator carries out the effects of one or several steps in this order: what a closed round needs,
then everything to be stored in one transaction, then answers, then the rest. An answer is therefore never sent before
what it says is on disk, nor a round opened before the votes of the one before are, and what the learner made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedpg_common.transport.verdicts import Verdict

# Events ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RoundOpened:
    """A round begins. `votes` are those already stored, when a restart takes it up again."""

    round_number: int
    parameters_digest: bytes
    votes: Mapping[int, bytes] = field(default_factory=dict)
    closed: bool = False
    """Whether the round had been closed already before a restart."""


@dataclass(frozen=True)
class Submitted:
    """A submission arrived. `ticket` names the call that waits for the answer."""

    ticket: int
    agent: int
    round_number: int
    parameters_digest: bytes
    digest: bytes
    """Of the gradient's bytes."""
    defect: Verdict | None = None
    """What is wrong with the gradient itself or the run it names, if anything."""
    stored: bytes | None = None
    """Digest of this agent's stored vote if the round is not the open one, from the store."""


@dataclass(frozen=True)
class Joined:
    """A member joined, for the first time or again."""

    agent: int


@dataclass(frozen=True)
class Seen:
    """A member called."""

    agent: int


@dataclass(frozen=True)
class Left:
    """A member said goodbye."""

    agent: int


@dataclass(frozen=True)
class Failed:
    """A member said goodbye because it failed, and does not return by itself."""

    agent: int
    why: str
    """In its own words."""


@dataclass(frozen=True)
class RoundImproved:
    """The learner is done with a closed round."""

    round_number: int
    accepted: tuple[int, ...]
    filtered: tuple[int, ...]


@dataclass(frozen=True)
class RunEnded:
    """There will be no further round."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = RoundOpened | Submitted | Joined | Seen | Left | Failed | RoundImproved | RunEnded | Tick


# Effects --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoreVote:
    """Store the gradient that came with `ticket` as the agent's vote. It counts as a verdict "accepted", too."""

    ticket: int
    agent: int
    round_number: int
    digest: bytes


@dataclass(frozen=True)
class StoreConflict:
    """Store the evidence of an equivocation: the digest of a second, different submission."""

    agent: int
    round_number: int
    digest: bytes


@dataclass(frozen=True)
class CountVerdict:
    """Add one to the stored count of an agent's other verdicts; agent 0 stands for all who are not members."""

    agent: int
    verdict: Verdict


@dataclass(frozen=True)
class CloseRound:
    """Improve, and store that the round takes no more votes."""

    round_number: int
    voters: tuple[int, ...]
    """Whose votes are in by then, in order."""


@dataclass(frozen=True)
class Answer:
    """Answer the call that waits for `ticket`."""

    ticket: int
    verdict: Verdict


@dataclass(frozen=True)
class WakeAt:
    """Send a Tick at this time."""

    time_s: float


@dataclass(frozen=True)
class Warn:
    """Tell the operator."""

    message: str


Effect = StoreVote | StoreConflict | CountVerdict | CloseRound | Answer | WakeAt | Warn
