"""How omniscient attackers come to know every honest gradient: there is no side channel, so they recompute them.

A run is deterministic, so whoever knows its seed can do any agent's work again. Each attacker re-runs its share of the
other agents, in its own environments, and pools the results with its own gradient over the attackers' channel. What has
not arrived in time, the others recompute as well: what an omniscient attacker knows does not depend on timing.

Agents outside the attackers count as honest, and as having the environments that the attacker has. A rule's memory of
earlier rounds is not followed: `fedpg_client.attacks.scene` tries candidates on a fresh one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from fedpg_common.errors import UsageError
from fedpg_common.learning.parameters import Vector

from fedpg_client.attacks.base import Context

if TYPE_CHECKING:
    from fedpg_client.attacks.attacker import Pool

log = logging.getLogger(__name__)


def shares(attackers: Sequence[int], agents: int) -> dict[int, tuple[int, ...]]:
    """Which of the other agents of 1 to `agents` each attacker re-runs: dealt out in turn, both in ascending order."""
    members = sorted(attackers)
    others = [agent for agent in range(1, agents + 1) if agent not in members]
    return {attacker: tuple(others[rank :: len(members)]) for rank, attacker in enumerate(members)}


def contribution_size(attackers: Sequence[int], agents: int, size: int) -> int:
    """How many numbers an omniscient attacker pools in a round: its own gradient (d = `size`), and its share's.

    All pool as many; those with a smaller share fill up with zeros.
    """
    return size * (1 + max(map(len, shares(attackers, agents).values())))


def foresee(pool: Pool | None, gradient: Vector, context: Context) -> tuple[dict[int, Vector], Context]:
    """What `collude` of an omniscient attack is given: what all attackers would submit, and what honest agents do.

    `gradient` (d,) is this attacker's own. Raises UsageError for an attacker without the run's seed.
    """
    recompute = _recompute_of(context)
    work = shares(context.attackers, context.agents)
    known = {context.agent: gradient}
    known.update((agent, recompute(agent)) for agent in work[context.agent])
    if pool is not None:
        known = {**_exchange(pool, known, work, context), **known}
    missing = [agent for agent in range(1, context.agents + 1) if agent not in known]
    if missing:
        log.info("round %d: recomputing also agents %s", context.round_number, ", ".join(map(str, missing)))
    known.update((agent, recompute(agent)) for agent in missing)
    pooled = {agent: known[agent] for agent in sorted(context.attackers)}
    honest = {agent: known[agent] for agent in sorted(known) if agent not in pooled}
    return pooled, replace(context, honest=honest)


def contribution(gradient: Vector, context: Context) -> Vector:
    """What an omniscient attacker pools in this round: its own `gradient` (d,), then those of its share, recomputed.

    Shape (n d,), see `contribution_size`. Raises UsageError for an attacker without the run's seed.
    """
    recompute = _recompute_of(context)
    share = shares(context.attackers, context.agents)[context.agent]
    return _pooled(gradient, [recompute(agent) for agent in share], context)


def _recompute_of(context: Context) -> Callable[[int], Vector]:
    if context.recompute is None:
        raise UsageError(f"agent {context.agent}: an omniscient attack needs the run's seed")
    return context.recompute


def _pooled(gradient: Vector, share: Sequence[Vector], context: Context) -> Vector:
    size = len(gradient)
    rows = np.zeros((contribution_size(context.attackers, context.agents, size) // size, size), np.float32)
    for row, vector in enumerate((gradient, *share)):
        rows[row] = vector
    return rows.reshape(-1)


def _exchange(
    pool: Pool, known: Mapping[int, Vector], work: Mapping[int, tuple[int, ...]], context: Context
) -> dict[int, Vector]:
    """Contribute what this attacker knows; what those that have come know, by agent."""
    size = len(known[context.agent])
    brought = _pooled(known[context.agent], [known[agent] for agent in work[context.agent]], context)
    pooled: dict[int, Vector] = {}
    for attacker, vector in pool.exchange(context.round_number, brought).items():
        rows = vector.reshape(-1, size)
        pooled.update(zip((attacker, *work[attacker]), rows, strict=False))
    return pooled
