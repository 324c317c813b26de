"""What an aggregator is given, and what it answers with.

An aggregator is a class with one method. Its settings go to the constructor, which checks them and raises ValueError
with one sentence. It keeps nothing between rounds but its memory, which the server stores with the round, so that it
survives `kill -9` and a recomputed round has the same bits:

    class Middle:
        '''The coordinate-wise median.'''

        def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
            return Aggregate(np.median(votes.matrix, axis=0).astype(np.float32), rule="median")

It is chosen as `aggregator = "my_filters:Middle"`. Aggregators live where attackers may import them: a filter must hold
against an attacker who knows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.aggregators.distances import pairwise_distances
from fedpg_common.learning.parameters import Vector
from fedpg_common.tasks import Task

Memory = Mapping[str, Vector]
"""Named float32 vectors of any length (n,). Names are words with - and /."""


@dataclass(frozen=True)
class RoundPlan:
    """A round's random choices. The agents are told the batch size."""

    round_number: int
    batch_size: int
    """B_t, trajectories."""
    inner_steps: int
    """N_t; 0 where there is no inner loop."""


@dataclass(frozen=True, eq=False)
class Votes:
    """What arrived in a round: at least one vote. Nothing tells who is Byzantine, or how many are."""

    agents: tuple[int, ...]
    """Who voted: k 1-based indices, ascending."""
    matrix: NDArray[np.float32]
    """Their gradients, finite, one row per agent in that order: (k, d)."""
    federation_size: int
    """K. Who is absent counts as faulty."""
    plan: RoundPlan
    task: Task
    """The published settings: α, and σ and δ for the rules that use them."""
    server_gradient: Vector | None = None
    """The server's own estimate ∇L(θ_0), shape (d,), where the algorithm makes one or the aggregator needs one."""
    server_scale: float | None = None
    """How far one honest vote lies from the true gradient (root mean square), by the scatter of the server's batches,
    where the algorithm knows: no agent can touch it. `scale.scale_of` estimates it where the algorithm does not."""
    tolerated: int | None = None
    """⌊αK⌋ of the whole federation, where these are not the agents' votes but a pre-aggregator's rows."""
    trajectories: tuple[int, ...] | None = None
    """For how many trajectories each vote stands, as its agent says: one at least, and no more than it was asked for.
    None where nobody was asked. For weights: an agent can make its own smaller, and not larger."""
    batch_sizes: NDArray[np.float64] | None = None
    """(k,): B_t of each vote, where agents are described to sample batches of their own sizes; None where it is the
    plan's for all. For bounds on noise: an agent can make its own smaller only where the description lets it."""

    @property
    def faulty(self) -> int:
        """⌊αK⌋, the largest number of faulty votes that the federation tolerates; who is absent counts among them."""
        return self.task.tolerated(self.federation_size) if self.tolerated is None else self.tolerated

    @cached_property
    def distances(self) -> NDArray[np.float64]:
        """Euclidean distances between the votes, shape (k, k)."""
        return pairwise_distances(self.matrix)


@dataclass(frozen=True, eq=False)
class Aggregate:
    """A round's μ and how it came about."""

    vector: Vector | None
    """μ, shape (d,); None when no vote survived."""
    rule: str
    """What decided, in a word or two: "R1", "median", "none"."""
    weights: Mapping[int, float] | None = None
    """How much each voter's vector counted, from 0 (filtered out) to 1; an agent that is missing has 0. None where the
    rule selects nobody in particular."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What else is worth seeing, by name: "radius", "clipping-norm". They go to the records and the telemetry."""
    memory: Memory = field(default_factory=dict)
    """What the next round's call is given."""
    median_agent: int | None = None
    """Whose vector the rule measured distances from, where it was one of the votes."""


class Aggregator(Protocol):
    """A rule that makes one vector of a round's votes."""

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Combine the votes. Must not depend on their order, nor change them. Deterministic: same input, same bits."""
        ...


def reference_batch(part: object, plan: RoundPlan) -> int:
    """How many trajectories the server samples for its own gradient in a round; 0 where a part needs none.

    An aggregator or a pre-aggregator that needs `Votes.server_gradient` says so with a class attribute
    `needs_reference = True`. It gets one from B_t trajectories, or from as many as its attribute `reference_batch` says
    where it has one that is not None. Where that estimate is not finite, there is no μ in the round.
    """
    if not getattr(part, "needs_reference", False):
        return 0
    own: int | None = getattr(part, "reference_batch", None)
    return plan.batch_size if own is None else own


@runtime_checkable
class Selective(Protocol):
    """An aggregator that cannot serve every federation."""

    def check_federation(self, votes: Votes) -> None:
        """Raise ValueError, with one sentence, for a federation that it cannot serve.

        It is called before a run, with votes of all agents that say nothing but how many there are: zeros, of shape
        (K, 1) unless pre-aggregators leave fewer, and a server's gradient if the algorithm estimates one.
        """


@runtime_checkable
class Tryable(Protocol):
    """An aggregator that can tell of many vectors at once what it would make of them, faster than one by one."""

    def try_each(
        self, votes: Votes, rows: tuple[int, ...], vectors: NDArray[np.float32]
    ) -> Sequence[Aggregate | None] | None:
        """What `aggregate` makes of the votes, without a memory, if all agents in these rows submit one of the vectors
        (c, d): of each its vector and weights. None where `aggregate` has to be asked: for a vector, or altogether.
        """


@dataclass(frozen=True, eq=False)
class Mixed:
    """What a pre-aggregator makes of the votes: rows that the next one, or the aggregator, takes for votes."""

    matrix: NDArray[np.float32]
    """(rows, d): as many rows as there are votes, or fewer."""
    shares: NDArray[np.float64]
    """(rows, k): how much of each vote is in each row. A vote that was only shortened is there with 1."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What else is worth seeing, by name."""


class PreAggregator(Protocol):
    """What happens to the votes before they are aggregated: mixing, bucketing, clipping."""

    def mix(self, votes: Votes) -> Mixed:
        """Mix the votes, at least one. The same promises as `Aggregator.aggregate`. Random choices follow from the
        round's number (`votes.plan.round_number`).
        """
        ...


@runtime_checkable
class Remembering(Protocol):
    """A pre-aggregator that keeps something from one round to the next: it is stored with the aggregator's memory."""

    def mix_remembering(self, votes: Votes, memory: Memory) -> tuple[Mixed, Memory]:
        """Mix the votes, and what the next round's call is given. Promises are those of `Aggregator.aggregate`."""
        ...


def mean_vector(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean of the rows of (k, d), added in their order: shape (d,), float64."""
    total = np.zeros(matrix.shape[1], dtype=np.float64)
    for row in matrix:
        total += row
    return total / len(matrix)
