"""What each agent of a local federation is told when it starts."""

from __future__ import annotations

import socket

from fedpg_client.attacks import Knowledge, knowledge_of
from fedpg_client.attacks.scene import UNKNOWN_RULE
from fedpg_client.process import AgentOptions, Collusion
from fedpg_client.trust import trusting
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import attackers_secret
from fedpg_common.federation import Federation
from fedpg_common.shipped import ALGORITHMS


def agent_options(federation: Federation, server: str) -> list[AgentOptions]:
    """Every agent's configuration on this machine.

    Agents with the same attack, settings included, collude with each other if it is an attack that does: they meet on
    a loopback port of their own, share a secret that follows from the run's seed, and know the server's rule. That seed
    itself is for attackers whose attack is omniscient. Raises UsageError for an attack or a setting that is not one.
    """
    collusions: dict[int, Collusion] = {}
    omniscient: set[int] = set()
    rule: Choice | None = None
    for attack, attackers in same_attack(federation):
        knowledge = knowledge_of(attack)
        if knowledge >= Knowledge.COLLUDERS:
            rule = rule_of(federation)
            meeting_point = free_address() if len(attackers) > 1 else ""
            secret = attackers_secret(federation.seed, attackers)
            for index in attackers:
                listen = meeting_point if index == attackers[0] else ""
                collusions[index] = Collusion(attackers, meeting_point, listen, secret)
        if knowledge >= Knowledge.OMNISCIENT:
            omniscient.update(attackers)
    return [
        AgentOptions(
            index,
            server,
            federation.byzantine.get(index),
            collusions.get(index),
            run_seed=federation.seed if index in omniscient else None,
            allow=trusting(federation.task_of(index)),
            module_folder=federation.task.module_folder,
            aggregator=rule if index in collusions else None,
        )
        for index in range(1, federation.agents + 1)
    ]


def rule_of(federation: Federation) -> Choice:
    """The aggregator that the server uses: the description's, or the algorithm's own. Raises UsageError."""
    if federation.aggregator is not None:
        return federation.aggregator
    algorithm = ALGORITHMS.find(federation.algorithm.name)
    return Choice(getattr(algorithm, "default_aggregator", UNKNOWN_RULE.name))


def same_attack(federation: Federation) -> list[tuple[Choice, tuple[int, ...]]]:
    """Each attack of the federation, and the agents that make it, ascending."""
    groups: list[tuple[Choice, list[int]]] = []
    for index, attack in sorted(federation.byzantine.items()):
        members = next((members for other, members in groups if other == attack), None)
        if members is None:
            groups.append((attack, [index]))
        else:
            members.append(index)
    return [(attack, tuple(members)) for attack, members in groups]


def free_address() -> str:
    """A loopback address whose port is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
