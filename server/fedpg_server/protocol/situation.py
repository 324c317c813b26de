"""Where a run is, in one sentence for people: what it waits for, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from fedpg_common.transport.verdicts import Verdict

from fedpg_server.protocol.membership import Phase, Presence

if TYPE_CHECKING:
    from fedpg_server.protocol.coordinator import Coordinator

FAILURE_CHARACTERS_MAX = 160
"""How much of an agent's own words goes into the sentence."""


def describe_situation(coordinator: Coordinator) -> str:
    """What the run waits for, and which agents cannot help it."""
    if coordinator.phase is Phase.ENDED:
        return "the run has ended"
    if coordinator.phase is Phase.IMPROVING:
        return "the server improves the policy"
    return "; ".join([_waiting(coordinator), *_troubles(coordinator)])


def _waiting(coordinator: Coordinator) -> str:
    rules, number = coordinator.rules, coordinator.round_number
    votes, absent = len(coordinator.votes), coordinator.absent()
    if coordinator.phase is Phase.BELOW_QUORUM:
        missing = rules.quorum - votes
        whom = f"{missing} more of {name_agents(absent)}" if missing < len(absent) else name_agents(absent)
        return f"round {number} is below the quorum of {rules.quorum}: {whom} must submit"
    if coordinator.phase is Phase.COLLECTING:
        return f"round {number}: {votes} of {rules.agents} votes, waiting for {name_agents(absent)}"
    present = coordinator.present
    what = "starting" if number == 1 else f"resuming with round {number}"
    sentence = f"{what}: {len(present)} of {rules.agents} agents have joined"
    if len(present) < rules.quorum:
        return f"{sentence}, a quorum is {rules.quorum}"
    away = [agent for agent in coordinator.members if agent not in present]
    return f"{sentence}, waiting for {name_agents(away)}" if away else sentence


def _troubles(coordinator: Coordinator) -> Iterator[str]:
    """Who has been refused in the open round, and who has failed."""
    refused: Mapping[int, Verdict] = coordinator.refused
    for verdict in sorted(set(refused.values())):
        agents = [agent for agent in sorted(refused) if refused[agent] is verdict]
        yield f"{name_agents(agents)}: {'gradients' if len(agents) > 1 else 'gradient'} refused, {verdict.label}"
    failed = [agent for agent, member in coordinator.members.items() if member.presence is Presence.FAILED]
    if failed:
        why = coordinator.members[failed[0]].failure
        if len(why) > FAILURE_CHARACTERS_MAX:
            why = why[: FAILURE_CHARACTERS_MAX - 1] + "…"
        reason = f": {why}" if why else ""
        yield f"{name_agents(failed)} {'have' if len(failed) > 1 else 'has'} failed{reason}"


def name_agents(agents: Iterable[int], limit: int = 10) -> str:
    """Agents for people: "agent 3", "agents 1, 3, 5-9", cut after `limit` numbers or ranges: "and 7 more"."""
    indices = sorted(agents)
    if not indices:
        return "no agent"
    runs = [[index for _, index in run] for _, run in groupby(enumerate(indices), lambda pair: pair[1] - pair[0])]
    parts: list[list[int]] = []
    for run in runs:
        parts += [run] if len(run) > 3 else [[index] for index in run]
    shown = ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts[:limit])
    hidden = sum(len(part) for part in parts[limit:])
    more = f" and {hidden} more" if hidden else ""
    return f"{'agents' if len(indices) > 1 else 'agent'} {shown}{more}"
