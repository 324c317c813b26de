"""Hostile behaviours: what an agent may do to the protocol, in place of its vote or beside it.

Each class overrides one method of `HostileCalls`. All but its randomness and its bounds is in its docstring.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedpg_common.federation import Hostility

from fedpg_client.agent import Calls
from fedpg_client.hostile.connections import Flood, Garbage, SlowLoris
from fedpg_client.hostile.line import HostileCalls, Target
from fedpg_client.hostile.submissions import (
    Equivocation,
    Impersonation,
    NotFinite,
    Oversized,
    Replay,
    Silence,
    StaleRound,
    WrongShape,
)

__all__ = ["BEHAVIOURS", "HostileCalls", "Target", "casts_vote", "make_hostile"]

BEHAVIOURS: Mapping[Hostility, type[HostileCalls]] = {
    Hostility.REPLAY: Replay,
    Hostility.EQUIVOCATION: Equivocation,
    Hostility.STALE_ROUND: StaleRound,
    Hostility.WRONG_SHAPE: WrongShape,
    Hostility.NOT_FINITE: NotFinite,
    Hostility.OVERSIZED: Oversized,
    Hostility.IMPERSONATION: Impersonation,
    Hostility.SLOW_LORIS: SlowLoris,
    Hostility.FLOOD: Flood,
    Hostility.SILENCE: Silence,
    Hostility.GARBAGE: Garbage,
}


def casts_vote(hostility: Hostility) -> bool:
    """Whether an agent that behaves like that votes in every round all the same."""
    return BEHAVIOURS[hostility].casts_vote


def make_hostile(hostility: Hostility, line: Calls, target: Target) -> HostileCalls:
    """The calls of an agent that behaves like that; `line` is the honest line on which it takes part."""
    return BEHAVIOURS[hostility](line, target)
