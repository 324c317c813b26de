"""What the coordinator knows of a federation and of each of its agents."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.transport.verdicts import Verdict

from fedpg_server.protocol.gathering import GRACE_S

NOTE_CHARACTERS_MAX = 500
"""What is kept of an agent's own words on why it failed."""


class Phase(IntEnum):
    """As `Phase` in federation.proto, with its numbers."""

    COLLECTING = pb.PHASE_COLLECTING
    BELOW_QUORUM = pb.PHASE_BELOW_QUORUM
    IMPROVING = pb.PHASE_IMPROVING
    ENDED = pb.PHASE_ENDED
    JOINING = pb.PHASE_JOINING


OPEN = (Phase.JOINING, Phase.COLLECTING, Phase.BELOW_QUORUM)
"""A round takes votes."""


class Presence(IntEnum):
    """As `AgentStatus.Presence` in federation.proto, with its numbers."""

    NEVER_SEEN = pb.AgentStatus.PRESENCE_NEVER_SEEN
    JOINED = pb.AgentStatus.PRESENCE_JOINED
    LEFT = pb.AgentStatus.PRESENCE_LEFT
    FAILED = pb.AgentStatus.PRESENCE_FAILED


@dataclass(frozen=True)
class Rules:
    """What the coordinator has to know of the federation: nothing of who is Byzantine."""

    agents: int
    quorum: int
    round_timeout_s: float
    grace_s: float = GRACE_S
    """See `Gathering`."""


@dataclass
class Member:
    """What the coordinator knows of one agent."""

    presence: Presence = Presence.NEVER_SEEN
    failure: str = ""
    """Why it failed, in its own words, clean of control characters; empty unless its presence is FAILED."""
    last_seen_s: float | None = None
    last_vote_round: int = 0
    last_verdict: Verdict | None = None
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    rounds_accepted: int = 0
    rounds_filtered: int = 0
    calls: int = 0
    """Of this process, like the next one."""
    polls_cut: int = 0


def clean(text: str) -> str:
    """An agent's words for logs and terminals: one line without control characters, cut."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * NOTE_CHARACTERS_MAX])
    return " ".join(printable.split())[:NOTE_CHARACTERS_MAX]
