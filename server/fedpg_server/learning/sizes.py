"""For how many trajectories each vote stands: what agents were asked for, and what they say that they have sampled.

An agent's word is taken only for less than it was asked for. For weights it is taken for any less, since a small weight
costs its agent alone; for bounds on noise, which it would widen, only down to what the description lets agents submit.
docs/algorithm.md, "Batches of different sizes".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan, Votes


def claims_of(reports: Mapping[int, bytes]) -> dict[int, int]:
    """How many trajectories agents say that they have sampled, by agent; `reports` are their WorkReport messages."""
    return {agent: pb.WorkReport.FromString(report).trajectories for agent, report in reports.items()}


def for_those(seen: Votes, votes: Votes) -> Votes:
    """What is left of `votes` when some were kept back: `seen`, with what these agents' votes stand for."""
    if len(seen.agents) == len(votes.agents):
        return seen
    rows = [votes.agents.index(agent) for agent in seen.agents]
    counts, sizes = votes.trajectories, votes.batch_sizes
    return replace(
        seen,
        trajectories=None if counts is None else tuple(counts[row] for row in rows),
        batch_sizes=None if sizes is None else sizes[rows],
    )


class Sizes:
    """The batches of a federation's agents."""

    def __init__(self, federation: Federation) -> None:
        """Draw them."""
        self._agents = federation.agents
        self._are_described = bool(federation.speeds)
        described = range(1, federation.agents + 1) if self._are_described else ()
        self._speeds = {agent: federation.speed_of(agent) for agent in described}

    def asked(self, plan: RoundPlan, agent: int) -> int:
        """How many trajectories an agent is asked for in a round."""
        return self._speeds[agent].most(plan.batch_size) if self._are_described else plan.batch_size

    def asked_in_all(self, plan: RoundPlan) -> int:
        """How many all agents are asked for, present or not."""
        if not self._are_described:
            return self._agents * plan.batch_size
        return sum(self.asked(plan, agent) for agent in self._speeds)

    def told(self, votes: Votes, claims: Mapping[int, int] | None) -> Votes:
        """The votes with what they stand for; without claims, what was asked for."""
        plan = votes.plan
        asked = {agent: self.asked(plan, agent) for agent in votes.agents}
        said = asked if claims is None else claims
        trajectories = tuple(max(1, min(said.get(agent, 0), most)) for agent, most in asked.items())
        if not self._are_described:
            return replace(votes, trajectories=trajectories)
        least = [self._speeds[agent].fewest(plan.batch_size) for agent in votes.agents]
        sizes = np.maximum(np.array(trajectories, np.float64), least)
        return replace(votes, trajectories=trajectories, batch_sizes=sizes)
