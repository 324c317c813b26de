"""The table of agents, and the clock of the open round: from the store, and from the server where it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedpg_lab.watch.adapter import Facts, Round
from fedpg_lab.watch.history import ABSENT, ACCEPTED, FILTERED, LATELY, VOTED, History
from fedpg_lab.watch.worlds import world_of

VERDICTS = {ACCEPTED: "accepted", FILTERED: "filtered", ABSENT: "absent", VOTED: "voted"}
PRESENCE = {
    "PRESENCE_NEVER_SEEN": "not seen",
    "PRESENCE_JOINED": "joined",
    "PRESENCE_LEFT": "left",
    "PRESENCE_FAILED": "failed",
}
PHASES = {
    "PHASE_COLLECTING": "collecting votes",
    "PHASE_BELOW_QUORUM": "below quorum",
    "PHASE_IMPROVING": "improving the policy",
    "PHASE_ENDED": "ended",
    "PHASE_JOINING": "waiting for agents to join",
}
WAITING_MAX = 200
"""Agents that are listed as waited for."""


def agents_table(
    facts: Facts,
    history: History,
    voters: frozenset[int],
    refusals: Mapping[int, Mapping[str, int]],
    status: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """A row per agent. What is not known is None."""
    counts = history.counts()
    seen = {entry["agent"]: entry for entry in status["agents"]} if status else {}
    last = history.last
    radius = last.figures.get("radius") if last else None
    rows = []
    for agent in range(1, facts.agents + 1):
        place = agent - 1
        voted = counts["lately_accepted"][place] + counts["lately_filtered"][place]
        told = seen.get(agent, {})
        distance = last.distances.get(agent) if last else None
        rows.append({
            "agent": agent,
            "attack": facts.byzantine.get(agent),
            "presence": PRESENCE.get(str(told.get("presence"))),
            "voted": bool(told["voted"]) if told else agent in voters,
            "verdict": VERDICTS[counts["last"][place]] if counts["last"] else None,
            "accepted": counts["accepted"][place],
            "filtered": counts["filtered"][place],
            "absent": counts["absent"][place],
            "heard": counts["heard"][place],
            "lately": counts["lately_accepted"][place] / voted if voted else None,
            "lately_filtered": counts["lately_filtered"][place],
            "lately_absent": counts["lately_absent"][place],
            "distance": _finite(distance / radius) if distance is not None and radius else None,
            "weight": _weight(last, agent) if last else None,
            "trajectories": (last.whole.vote_trajectories or {}).get(agent) if last else None,
            **world_of(facts, history.last_in_worlds, agent),
            "refused": dict(refusals.get(agent, {})),
            "last_vote": counts["last_votes"][place] or None,
            "last_seen_s": _finite(told["last_seen_s"]) if told and told["last_seen_s"] >= 0 else None,
            "note": told.get("note") or None,
        })  # fmt: skip
    return rows


def _weight(last: Round, agent: int) -> float | None:
    """How much the agent's latest vote counted; None where it has none, or the rule selects nobody in particular."""
    is_weighed = bool(last.weights) and (agent in last.accepted or agent in last.filtered)
    return last.weights.get(agent, 0.0) if is_weighed else None


def clock(
    facts: Facts,
    history: History,
    voters: frozenset[int],
    status: Mapping[str, Any] | None,
    is_live: bool,
) -> dict[str, Any]:
    """What the open round waits for. `source` says who tells: the server itself, or the store that it writes."""
    if not is_live:
        return {"source": None}
    if status is None:
        number = len(history) + 1
        missing = [agent for agent in range(1, facts.agents + 1) if agent not in voters]
        return {
            "source": "store", "phase": None, "round": number, "votes": len(voters), "quorum": facts.quorum,
            "agents": facts.agents, "deadline_in_s": None, "waiting_for": missing[:WAITING_MAX],
            "message": f"round {number}: {len(voters)} of {facts.agents} votes are in, the quorum is {facts.quorum}",
        }  # fmt: skip
    members = status["agents"]
    missing = [entry["agent"] for entry in members if not entry["voted"]]
    is_collecting = status["phase"] in ("PHASE_COLLECTING", "PHASE_BELOW_QUORUM", "PHASE_JOINING")
    return {
        "source": "server",
        "phase": PHASES.get(status["phase"], status["phase"]),
        "round": status["round"],
        "votes": len(members) - len(missing),
        "quorum": status["quorum"],
        "agents": len(members),
        "deadline_in_s": _finite(status["deadline_in_s"]) if status["phase"] == "PHASE_COLLECTING" else None,
        "waiting_for": missing[:WAITING_MAX] if is_collecting else [],
        "message": status["message"],
        "uptime_s": _finite(status["uptime_s"]),
        "intrusions": status["intrusions"],
        "unreadable": status["unreadable"],
        "connections_closed": status["connections_closed"],
    }


def suspects(rows: list[dict[str, Any]], rounds: int) -> list[int]:
    """Who was filtered in more than half of its votes of the last LATELY rounds."""
    window = min(rounds, LATELY)
    found = [row for row in rows if window and row["lately"] is not None and row["lately"] < 0.5]
    return [row["agent"] for row in found]


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
