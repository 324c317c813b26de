"""The server's side of learning: from the agents' votes to the next policy.

Fan et al. 2021, Algorithm 1; docs/algorithm.md, "Round". No networking, no clock: a round's result follows from the
state, the votes and the run's seed alone, so that a round computed again after a crash has the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from fedpg_common.choices import Choice
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.errors import UsageError
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import (
    Aggregate,
    Aggregator,
    RoundPlan,
    Votes,
    build_aggregator,
    check_federation,
    distances_to,
    reference_batch,
)
from fedpg_common.learning.parameters import PARAMETERS_MAX, Vector
from fedpg_common.learning.policies import Policy
from fedpg_common.learning.recursion import Recursion
from fedpg_common.learning.streams import Purpose, Role, stream
from fedpg_common.shipped import ALGORITHMS
from fedpg_common.transport.wire import ROUND_VECTORS_MAX

from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.algorithms.base import (
    Algorithm,
    Completes,
    HandsOut,
    InnerReport,
    Reference,
    Sampled,
    SeesVotes,
    Tools,
    WithReferenceGradient,
    WithScreen,
    WithServerScale,
)
from fedpg_server.learning.algorithms.inner_loop import norm
from fedpg_server.learning.answers import (
    checked_aggregate,
    checked_call,
    checked_completion,
    checked_improvement,
    checked_plan,
    checked_recursion,
)
from fedpg_server.learning.published_networks import published_parameters
from fedpg_server.learning.records import Evaluation
from fedpg_server.learning.sizes import Sizes, for_those
from fedpg_server.learning.state import AGGREGATOR, EVALUATION, RETURNS, State
from fedpg_server.learning.worlds import Worlds

EVALUATION_EPISODES = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RoundResult:
    """A round's outcome."""

    state: State
    votes: Votes
    """What was aggregated; possibly nothing."""
    aggregate: Aggregate
    centre_distances: Mapping[int, float]
    """Each voter's distance to the vector that the rule measured from, or else to μ; empty where there is neither."""
    gradient_norm: float
    """‖μ‖; 0 when no gradient survived."""
    inner: InnerReport
    trajectories: int
    """The round's trajectory count as on the x-axis of the published figures."""
    learning_rate: float
    evaluation: Evaluation | None = None
    """None where the next round need not wait for it: `Learner.evaluate` makes it of the state's θ."""
    reference: Sampled = field(default_factory=Sampled)
    """The batch of the server's own gradient, where the aggregator needed one."""


class Learner:
    """An algorithm, an aggregator and the evaluation: what a round does with its votes."""

    def __init__(
        self, federation: Federation, environments: EnvironmentBatch, policy: Policy, worlds: Worlds | None = None
    ) -> None:
        """`environments` are the server's own; `worlds` are the agents', where policies are to be evaluated there, too.

        Of the federation's attackers nothing is read.

        Raises UsageError if the algorithm or the aggregator cannot be built as described, or for that many agents.
        """
        self._task = federation.task
        self._agents = federation.agents
        self._seed = federation.seed
        self._has_published_network = federation.published_networks
        self._policy = policy
        self._tools = Tools(federation.task, federation.agents, policy, federation.seed, environments)
        self._algorithm = algorithm = build_algorithm(federation.algorithm, self._tools)
        # Looked up once: what a class can do is costly to ask.
        self._hands_out = algorithm if isinstance(algorithm, HandsOut) else None
        self._sees_votes = algorithm if isinstance(algorithm, SeesVotes) else None
        self._with_gradient = algorithm if isinstance(algorithm, WithReferenceGradient) else None
        self._completes = algorithm if isinstance(algorithm, Completes) else None
        self._with_scale = algorithm if isinstance(algorithm, WithServerScale) else None
        self._with_screen = algorithm if isinstance(algorithm, WithScreen) else None
        self._chosen = federation.aggregator or Choice(self._algorithm.default_aggregator)
        self._aggregator: Aggregator = build_aggregator(self._chosen)
        self._needs_reference = bool(getattr(self._aggregator, "needs_reference", False))
        has_reference = self._needs_reference or self._with_gradient is not None
        check_federation(self._aggregator, self._chosen, self._task, self._agents, has_reference)
        self._check_size(federation.algorithm)
        self._name = federation.algorithm.name
        self._needs_evaluation = bool(getattr(self._algorithm, "needs_evaluation", False))
        self._worlds, self._worlds_every = worlds, federation.worlds_every
        self._sizes = Sizes(federation)

    def initial_state(self) -> State:
        """The state before round 1: θ drawn from the run's seed, Adam fresh, no memory."""
        if self._has_published_network:
            return fresh(published_parameters(self._policy.spec, self._seed))
        return fresh(self._policy.initial_parameters(stream(self._seed, Role.SERVER, Purpose.INITIAL_PARAMETERS)))

    def plan(self, round_number: int) -> RoundPlan:
        """B_t and N_t of a round, counted from 1."""
        return checked_plan(lambda: self._algorithm.plan(round_number), round_number, self._name)

    @property
    def round_vectors(self) -> int:
        """How many vectors (d,) a round's message holds at most."""
        return ROUND_VECTORS_MAX if self._hands_out is not None else 1

    def recursion(self, state: State, plan: RoundPlan) -> Recursion | None:
        """What the round's agents need beside θ_0; None where they estimate ∇L(θ_0)."""
        algorithm = self._hands_out
        if algorithm is None:
            return None
        return checked_recursion(lambda: algorithm.recursion(state, plan), state.theta.size, self._name)

    def improve(self, state: State, plan: RoundPlan, updates: Mapping[int, Vector]) -> RoundResult:
        """Aggregate, and improve the policy. It is evaluated, too, if the algorithm needs that for its next round.

        `updates` are finite vectors (d,) by agent index, possibly none, each of the trajectories that were asked for.
        Raises UsageError if an algorithm or an aggregator that does not come with FedPG breaks its promises, and
        nothing else.
        """
        return self.improve_counting(state, plan, updates, None)

    def improve_counting(
        self, state: State, plan: RoundPlan, updates: Mapping[int, Vector], claims: Mapping[int, int] | None
    ) -> RoundResult:
        """The same, where agents say of how many trajectories their updates are: see `Sizes`."""
        reference = self._reference(state, plan)
        votes = self._sizes.told(self._votes(state, plan, updates, reference), claims)
        aggregate = self._aggregate(votes, state)
        mu = aggregate.vector
        improved, report = checked_improvement(lambda: self._improve(state, plan, votes, aggregate), state, self._name)
        improved = improved.with_memory(AGGREGATOR, aggregate.memory)
        evaluation = None
        if self._needs_evaluation:
            evaluation = self.evaluate(improved.theta, plan.round_number)
            improved = improved.with_memory(EVALUATION, {RETURNS: np.array(evaluation.returns, np.float32)})
        return RoundResult(
            state=improved,
            votes=votes,
            aggregate=aggregate,
            centre_distances=_centre_distances(votes, aggregate),
            gradient_norm=0.0 if mu is None else norm(mu),
            inner=report,
            trajectories=self._trajectory_count(plan, report, reference.sampled),
            learning_rate=self._task.learning_rate if report.learning_rate is None else report.learning_rate,
            evaluation=evaluation,
            reference=reference.sampled,
        )

    def dry_run(self, state: State, plan: RoundPlan, updates: Mapping[int, Vector]) -> Aggregate:
        """What would be made of these updates in this state, and nothing else. Raises UsageError as `improve` does."""
        votes = self._votes(state, plan, updates, self._reference(state, plan))
        return self._aggregate(self._sizes.told(votes, None), state)

    def _improve(self, state: State, plan: RoundPlan, votes: Votes, aggregate: Aggregate) -> tuple[State, InnerReport]:
        if self._sees_votes is not None:
            return self._sees_votes.improve_seeing(state, plan, votes, aggregate)
        return self._algorithm.improve(state, plan, aggregate.vector)

    def evaluate(self, theta: Vector, round_number: int) -> Evaluation:
        """Greedy episodes of the policy after a round, the same whenever they are played. Only shows how good it is."""
        played = self._tools.play_greedily(theta, round_number, EVALUATION_EPISODES)
        worlds = self._evaluate_in_worlds(theta, round_number)
        return Evaluation(tuple(played.returns().tolist()), tuple(played.lengths().tolist()), worlds)

    def _evaluate_in_worlds(self, theta: Vector, round_number: int) -> dict[int, float] | None:
        if self._worlds is None or round_number % self._worlds_every:
            return None
        return self._worlds.evaluate_round(theta, round_number, EVALUATION_EPISODES)

    def _reference(self, state: State, plan: RoundPlan) -> Reference:
        """The algorithm's own gradient, or if the aggregator needs one and there is none, one of a batch for it."""
        algorithm, own = self._with_gradient, None
        if algorithm is not None:
            own = checked_call(lambda: algorithm.reference_gradient(state, plan), self._name)
        if own is None and self._needs_reference:
            return self._tools.reference(state.theta, plan.round_number, reference_batch(self._aggregator, plan))
        return Reference(own, Sampled())

    def _votes(self, state: State, plan: RoundPlan, updates: Mapping[int, Vector], reference: Reference) -> Votes:
        agents = tuple(sorted(updates))
        matrix = np.zeros((len(agents), state.theta.size), np.float32)
        for row, agent in enumerate(agents):
            matrix[row] = updates[agent]
        algorithm = self._completes
        if algorithm is not None:
            sent = matrix
            matrix = checked_completion(lambda: algorithm.complete(state, plan, agents, sent), sent, self._name)
        matrix.flags.writeable = False
        votes = Votes(agents, matrix, self._agents, plan, self._task, reference.gradient)
        scaled = self._with_scale
        if scaled is not None:
            votes = replace(votes, server_scale=checked_call(lambda: scaled.server_scale(state, plan), self._name))
        return votes

    def _aggregate(self, votes: Votes, state: State) -> Aggregate:
        """μ = Aggregate({μ^(k)}). Without a vote there is none, and the memory stays as it is."""
        memory = state.memory(AGGREGATOR)
        seen, screening = votes, self._with_screen
        if screening is not None:
            seen = checked_call(lambda: for_those(screening.screen(state, votes), votes), self._name)
        if not seen.agents:
            return Aggregate(None, rule="none", weights={}, memory=memory)
        if self._needs_reference and seen.server_gradient is None:
            log.warning("round %d: the server's own gradient is not finite, so that the aggregator has nothing to go "
                        "by", votes.plan.round_number)  # fmt: skip
            return Aggregate(None, rule="none", weights={}, memory=memory)
        aggregate = checked_aggregate(lambda: self._aggregator.aggregate(seen, memory), seen, self._chosen.name)
        if aggregate.vector is None:
            log.warning("round %d: no gradient survived the aggregator", votes.plan.round_number)
        if aggregate.weights is None and len(seen.agents) < len(votes.agents):
            return replace(aggregate, weights=dict.fromkeys(seen.agents, 1.0))  # the others were kept from it
        return aggregate

    def _trajectory_count(self, plan: RoundPlan, report: InnerReport, reference: Sampled) -> int:
        """Trajectories per participant: of the inner batches, those that steps were made of count.

        docs/algorithm.md, "Trajectory count".
        """
        K, server = self._agents, report.sampled.trajectories + reference.trajectories
        agents = self._sizes.asked_in_all(plan)
        return round((agents + server) / (K + 1)) if K > 1 else agents + server

    def _check_size(self, algorithm: Choice) -> None:
        """Raise UsageError where a round's message could not hold what the algorithm hands out."""
        size, most = self._policy.spec.size, PARAMETERS_MAX // 2
        if self.round_vectors > 1 and size > most:
            raise UsageError(
                f"algorithm {algorithm.name} hands out up to {self.round_vectors} vectors per round, and a message "
                f"holds as many of {most} numbers, not of the policy's {size}: choose smaller layers"
            )


def build_algorithm(choice: Choice, tools: Tools) -> Algorithm:
    """The algorithm of a description. Raises UsageError."""
    algorithm: Algorithm = ALGORITHMS.build(choice, tools)
    for method in ("plan", "improve"):
        if not callable(getattr(algorithm, method, None)):
            raise UsageError(f"algorithm {choice.name} has no method {method!r}")
    if not isinstance(getattr(algorithm, "default_aggregator", None), str):
        raise UsageError(f"algorithm {choice.name} needs default_aggregator, the name of an aggregator")
    return algorithm


def _centre_distances(votes: Votes, aggregate: Aggregate) -> dict[int, float]:
    if aggregate.median_agent is not None:
        distances = votes.distances[votes.agents.index(aggregate.median_agent)]
    elif aggregate.vector is not None:
        distances = distances_to(aggregate.vector.astype(np.float64), votes.matrix)
    else:
        return {}
    return {agent: float(distance) for agent, distance in zip(votes.agents, distances, strict=True)}
