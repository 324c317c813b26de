"""What a run needs of a learner, what it takes from one that can do more, and how it asks.

`fedpg_server.learning.learner.Learner` can do all of it; tests and benchmarks have learners that do less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.recursion import Recursion

from fedpg_server.learning.learner import RoundResult
from fedpg_server.learning.records import Evaluation
from fedpg_server.learning.sizes import claims_of
from fedpg_server.learning.state import State


class RoundLearner(Protocol):
    """What a run needs of the learner."""

    def plan(self, round_number: int) -> RoundPlan:
        """The round's random choices."""

    def improve(self, state: State, plan: RoundPlan, updates: Mapping[int, Vector]) -> RoundResult:
        """Filter and improve; evaluate where the next round depends on it.

        Finite vectors cause nothing but the UsageError of a part that is not ours.
        """

    def evaluate(self, theta: Vector, round_number: int) -> Evaluation:
        """How good θ (d,) is, the policy after that round. Follows from the arguments alone."""


@runtime_checkable
class HandingOut(Protocol):
    """A learner whose rounds may hold more than θ_0."""

    round_vectors: int
    """How many vectors (d,) a round's message holds at most."""

    def recursion(self, state: State, plan: RoundPlan) -> Recursion | None:
        """What agents need beside θ_0."""


@runtime_checkable
class Counting(Protocol):
    """A learner that wants to know how many trajectories agents say they have sampled."""

    def improve_counting(
        self, state: State, plan: RoundPlan, updates: Mapping[int, Vector], claims: Mapping[int, int]
    ) -> RoundResult:
        """As `RoundLearner.improve`; claims by agent."""


def round_vectors_of(learner: RoundLearner) -> int:
    """How many vectors (d,) a round's message holds at most."""
    return learner.round_vectors if isinstance(learner, HandingOut) else 1


def recursion_of(learner: RoundLearner, state: State, plan: RoundPlan) -> Recursion | None:
    """What agents need beside θ_0, if anything."""
    return learner.recursion(state, plan) if isinstance(learner, HandingOut) else None


def improve(
    learner: RoundLearner,
    state: State,
    plan: RoundPlan,
    gradients: Mapping[int, Vector],
    reports: Mapping[int, bytes],
) -> RoundResult:
    """Improve by the gradients (d,); `reports` are the agents' WorkReport messages, for a learner that counts.

    The distances between the votes, which the round's record needs, are known afterwards: those of a thousand take
    longer than the caller's event loop may be held up.
    """
    if isinstance(learner, Counting):
        result = learner.improve_counting(state, plan, gradients, claims_of(reports))
    else:
        result = learner.improve(state, plan, gradients)
    _ = result.votes.distances  # kept by the votes
    return result
