"""A policy in the worlds of its agents, as the page shows it: over rounds, and by agent as last evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedpg_lab.watch.adapter import Facts, Round, over_worlds

MEAN, WORST, BEST = "mean over the worlds", "worst world", "best world"


def figures_of(one: Round) -> dict[str, float | None]:
    """The round's figures over worlds, by name; none for a round after which these were not played."""
    if not one.worlds:
        return {}
    over = over_worlds(one.worlds)
    return {MEAN: over.mean, WORST: over.worst, BEST: over.worst + over.spread}


def worlds_of(last: Round | None) -> dict[str, Any]:
    """What the page says of the last evaluation in all worlds, given its round; empty where there was none."""
    if last is None or not last.worlds:
        return {}
    over = over_worlds(last.worlds)
    return {
        "round": last.number,
        "worlds": len(last.worlds),
        "nominal": _finite(last.evaluation),
        "mean": _finite(over.mean),
        "worst": _finite(over.worst),
        "worst_agent": min(last.worlds, key=lambda agent: (last.worlds[agent], agent)),
        "spread": _finite(over.spread),
    }


def world_of(facts: Facts, last: Round | None, agent: int) -> dict[str, Any]:
    """What an agent's world has of its own, and what the policy last earned there; None where that is not known."""
    returns: Mapping[int, float] = last.worlds if last else {}
    return {
        "world": (facts.federation.world_of(agent).label or "usual") if facts.federation.has_worlds else None,
        "world_return": _finite(returns[agent]) if agent in returns else None,
    }


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
