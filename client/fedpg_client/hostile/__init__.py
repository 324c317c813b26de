"""Hostile behaviours: what an agent may do to the protocol, in place of its vote or beside it.

Each class overrides one method of `HostileCalls`. All but its randomness and its bounds is in its docstring.
"""

from __future__ import annotations

from collections.abc import Mapping

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

__all__ = ["BEHAVIOURS", "HostileCalls", "Target", "make_hostile"]

BEHAVIOURS: Mapping[str, type[HostileCalls]] = {
    "replay": Replay,
    "equivocation": Equivocation,
    "stale-round": StaleRound,
    "wrong-shape": WrongShape,
    "not-finite": NotFinite,
    "oversized": Oversized,
    "impersonation": Impersonation,
    "slow-loris": SlowLoris,
    "flood": Flood,
    "silence": Silence,
    "garbage": Garbage,
}


def make_hostile(hostility: str, line: Calls, target: Target) -> HostileCalls:
    """The calls of an agent that behaves like that; `line` is the honest line on which it takes part."""
    return BEHAVIOURS[hostility](line, target)
