"""Which agent trains in which group, and each group as a federation of its own."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Sequence
from enum import StrEnum

from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.tasks import Task

Groups = tuple[tuple[int, ...], ...]
"""The members of each group: indices in the whole federation, ascending."""


class Grouping(StrEnum):
    """Rules by which agents are put into groups."""

    HASH = "hash"
    """By SHA-256 of the index: nobody chooses a group, and groups differ in size."""
    ROUND_ROBIN = "round-robin"
    """In turn. Attackers with neighbouring indices, as they are by default, are spread evenly: the defence's best."""
    WORST_CASE = "worst-case"
    """As many groups as possible with more attackers than they tolerate; the sizes are those of round-robin."""


def split(federation: Federation, groups: int, grouping: Grouping) -> Groups:
    """The groups. Raises UsageError where one would be empty."""
    agents = range(1, federation.agents + 1)
    if not 1 <= groups <= federation.agents:
        raise UsageError(f"--groups must be 1 to the number of agents, {federation.agents}, not {groups}")
    if grouping is Grouping.WORST_CASE:
        sizes = [len(agents[first::groups]) for first in range(groups)]
        return _worst_case(sizes, federation.task, agents, federation.byzantine)
    members: list[list[int]] = [[] for _ in range(groups)]
    for agent in agents:
        place = agent - 1 if grouping is Grouping.ROUND_ROBIN else _hash(f"fedpg/group/{agent}")
        members[place % groups].append(agent)
    if not all(members):
        raise UsageError(
            f"with --grouping hash, group {members.index([]) + 1} of {groups} has none of the {federation.agents} "
            f"agents, whatever the seed: choose --groups {_most_by_hash(federation.agents, groups)}, or --grouping "
            "round-robin"
        )
    return tuple(tuple(group) for group in members)


def _most_by_hash(agents: int, groups: int) -> int:
    """The largest number of groups below `groups` of which a hash leaves none empty."""
    places = [_hash(f"fedpg/group/{agent}") for agent in range(1, agents + 1)]
    return next(count for count in range(groups - 1, 0, -1) if len({place % count for place in places}) == count)


def _worst_case(sizes: Sequence[int], task: Task, agents: Collection[int], byzantine: Collection[int]) -> Groups:
    """One attacker more than tolerated in a group after the other, the cheapest first; the rest anywhere."""
    attackers = [agent for agent in agents if agent in byzantine]
    honest = [agent for agent in agents if agent not in byzantine]
    members: list[list[int]] = [[] for _ in sizes]
    for group in sorted(range(len(sizes)), key=lambda group: (task.tolerated(sizes[group]), group)):
        needed = min(sizes[group], task.tolerated(sizes[group]) + 1)
        if needed <= len(attackers):
            members[group], attackers = attackers[:needed], attackers[needed:]
    rest = [*attackers, *honest]
    for group, size in enumerate(sizes):
        missing = size - len(members[group])
        members[group], rest = sorted(members[group] + rest[:missing]), rest[missing:]
    return tuple(tuple(group) for group in members)


def captured(federation: Federation, groups: Groups) -> int:
    """How many groups have more of the described attackers than they tolerate."""
    return sum(
        sum(agent in federation.byzantine for agent in members) > federation.task.tolerated(len(members))
        for members in groups
    )


def federation_of(federation: Federation, members: Sequence[int], number: int) -> Federation:
    """A group as a federation: its members are numbered from 1 in their order, and it has a seed of its own."""
    byzantine = {
        place: federation.byzantine[agent]
        for place, agent in enumerate(members, start=1)
        if agent in federation.byzantine
    }
    seed = _hash(f"fedpg/group-seed/{federation.seed}/{number}") >> 1
    return dataclasses.replace(federation, agents=len(members), byzantine=byzantine, seed=seed)


def _hash(text: str) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
