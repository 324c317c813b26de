"""What an algorithm is given, and what it answers with.

An algorithm is a class with a `default_aggregator`, `plan` and `improve`. Its settings go to the constructor behind the
tools, which checks them and raises ValueError with one sentence:

    class PlainSteps:
        '''N plain policy-gradient steps of the server's own after one on μ.'''

        default_aggregator = "mean"

        def __init__(self, tools: Tools, steps: int = 1) -> None:
            self._tools, self._steps = tools, steps

        def plan(self, round_number: int) -> RoundPlan:
            return RoundPlan(round_number, self._tools.task.batch_size, self._steps)

        def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> tuple[State, InnerReport]:
            ...

It may also have `reference_gradient(state, plan)`, the server's own estimate ∇L(θ_0) or None, which is made before the
votes are aggregated and which an aggregator finds in `Votes.server_gradient`; and what `WithServerScale`, `WithScreen`,
`SeesVotes`, `HandsOut` and `Completes` below are about. Memory of its own goes into the state's vectors named
algorithm/…, and an attribute `title` is its name in figures.

A round's evaluation is played while the agents work on the next round. An algorithm that decides by it says so with the
class attribute `needs_evaluation = True`: then the next round waits for it, and finds its returns in the state's vector
evaluation/returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.environments.cartpole import CartPoleBatch
from fedpg_common.environments.rollouts import rollout
from fedpg_common.learning.aggregators.base import Aggregate, RoundPlan, Votes
from fedpg_common.learning.gradient import Estimate, advantages, estimate
from fedpg_common.learning.kernels.inner_loop import CompiledLoop, LoopSettings, open_loop
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import CategoricalPolicy, Policy
from fedpg_common.learning.recursion import Recursion
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import Task
from numpy.typing import NDArray

from fedpg_server.learning.algorithms.adam import BETAS, EPSILON, adam_step
from fedpg_server.learning.state import State

IMPORTANCE_RATIO_RANGE = (0.995, 1.005)
"""Where the mean importance ratio of an inner batch must lie."""
Watch = Callable[[Trajectories, Vector], None]
"""Is told of an inner batch and of ∇L_ω(θ_0), shape (d,), which may be infinite."""
COMPILED_MAX = 2**24
"""A compiled loop keeps a batch's activations, at θ_n and at θ_0: so many numbers at most, 64 MiB."""
REFERENCE_STEP = -1
"""The number of the random streams of the batch for the server's own gradient: inner steps have those from 0."""


@dataclass
class Sampled:
    """How much was sampled in the server's environment."""

    trajectories: int = 0
    steps: int = 0

    def add(self, batch: Trajectories) -> None:
        """Count a batch in."""
        self.trajectories += batch.count
        self.steps += batch.steps


@dataclass
class InnerReport:
    """What became of a round's optimisation steps; a list has one entry per batch, in order."""

    steps_taken: int = 0
    """Adam steps, GPOMDP's single one included."""
    skipped_steps: int = 0
    """Steps left out because float32 could not have held their result (see `Tools.step`)."""
    aborted: bool = False
    """Whether the mean importance ratio left its range."""
    importance_ratios: list[float] = field(default_factory=list)
    """mean(ω), the dropped batch's included; empty when there was no μ to correct."""
    losses: list[float] = field(default_factory=list)
    """L(θ_n), the dropped batch's included."""
    gradient_norms: list[float] = field(default_factory=list)
    """‖v‖, without the dropped batch."""
    sampled: Sampled = field(default_factory=Sampled)
    """The batches that steps were made of. They count on the published figures' axis, and so bring a run to its end."""
    dropped: Sampled = field(default_factory=Sampled)
    """The batch that was dropped."""
    judged: Sampled = field(default_factory=Sampled)
    """Greedy episodes by which the algorithm judged its own result. The round's evaluation plays others."""
    learning_rate: float | None = None
    """Adam's, where it was not the task's."""
    figures: dict[str, float] = field(default_factory=dict)
    """What else is worth seeing, by name. They go to the records beside the aggregator's."""


class Algorithm(Protocol):
    """How the server turns a round's μ into the next policy."""

    default_aggregator: ClassVar[str]
    """The name of the aggregator that is used where the description names none."""

    def plan(self, round_number: int) -> RoundPlan:
        """B_t and N_t of a round, counted from 1. Follows from the run's seed and the round alone."""

    def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> tuple[State, InnerReport]:
        """The state after the round. `mu` is finite, shape (d,); None when no vote survived.

        The result must follow from the arguments alone. Raises nothing for any finite numbers.
        """


@runtime_checkable
class WithReferenceGradient(Protocol):
    """An algorithm that estimates a gradient of its own before the votes are aggregated."""

    def reference_gradient(self, state: State, plan: RoundPlan) -> Vector | None:
        """∇L(θ_0), shape (d,), or None where there is none this round."""


@runtime_checkable
class HandsOut(Protocol):
    """An algorithm whose agents' estimates build on the round before."""

    def recursion(self, state: State, plan: RoundPlan) -> Recursion | None:
        """What agents are handed out with the round, beside θ_0; None for a round of plain estimates ∇L(θ_0).

        It must follow from the arguments alone. What agents would have to remember from round to round belongs here or
        into the state: an agent that was started again submits the same bytes.
        """


@runtime_checkable
class Completes(Protocol):
    """An algorithm that keeps a part of each agent's estimate: what arrives is only what the round adds to it."""

    def complete(
        self, state: State, plan: RoundPlan, agents: Sequence[int], matrix: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The votes (k, d) that are aggregated, finite, made of what arrived: a row for each of `agents`, ascending.

        `matrix` (k, d) is not to be changed; k may be 0.
        """


@dataclass(frozen=True, eq=False)
class Reference:
    """The server's own estimate of a round's gradient, and what it cost."""

    gradient: Vector | None
    """∇L(θ_0), shape (d,), finite; None where it was not."""
    sampled: Sampled


@runtime_checkable
class WithServerScale(Protocol):
    """An algorithm that knows the honest votes' noise from batches of its own."""

    def server_scale(self, state: State, plan: RoundPlan) -> float | None:
        """√(tr Cov) of an honest vote of B_t trajectories, positive; None where it is not known yet."""


@runtime_checkable
class WithScreen(Protocol):
    """An algorithm that keeps votes from the aggregator."""

    def screen(self, state: State, votes: Votes) -> Votes:
        """The votes that are aggregated, possibly none: those given, without some of the agents."""


@runtime_checkable
class SeesVotes(Protocol):
    """An algorithm that looks at the votes, and at what the aggregator made of them."""

    def improve_seeing(
        self, state: State, plan: RoundPlan, votes: Votes, aggregate: Aggregate
    ) -> tuple[State, InnerReport]:
        """Is called in place of `improve`, with the same promises. `votes` are all, possibly none."""


@dataclass(frozen=True)
class Tools:
    """What algorithms are made with: the task, the policy, and the server's own environment."""

    task: Task
    agents: int
    """K."""
    policy: Policy
    seed: int
    """The run's."""
    environments: EnvironmentBatch

    @cached_property
    def compiled_loop(self) -> CompiledLoop | None:
        """Compiled inner steps of CartPole; None for other environments and policies, and where nothing is compiled."""
        task, policy, environments = self.task, self.policy, self.environments
        if type(environments) is not CartPoleBatch or type(policy) is not CategoricalPolicy:
            return None
        if 2 * task.mini_batch_size * task.horizon * sum(16 + size for size in policy.sizes) > COMPILED_MAX:
            return None
        settings = LoopSettings(
            policy.sizes, policy.activation, environments.physics, task.mini_batch_size, task.horizon, task.gamma,
            task.baseline == "time", IMPORTANCE_RATIO_RANGE, (1.0 - BETAS[0], BETAS[1], 1.0 - BETAS[1], EPSILON),
            environments.threads,
        )  # fmt: skip
        return open_loop(settings, policy.spec.size)

    def stream(self, purpose: Purpose, round_number: int, step: int = 0) -> np.random.Generator:
        """The server's random stream for one purpose of one round and inner step."""
        return stream(self.seed, Role.SERVER, purpose, round_number=round_number, step=step)

    def sample(self, theta: Vector, round_number: int, step: int, count: int | None = None) -> Trajectories:
        """`count` trajectories of π_θ (b of them by default) for one inner step, which numbers the streams.

        A reward that is not finite costs the step: see `take_step`.
        """
        rng = self.stream(Purpose.ACTION, round_number, step)
        batch_size = self.task.mini_batch_size if count is None else count
        seeds = episode_seeds(self.stream(Purpose.ENVIRONMENT, round_number, step), batch_size)
        with self.environments.drawing(round_number, step, finite_rewards=False):
            return rollout(self.environments, self.policy, theta, self.task.horizon, seeds, rng)

    def reference(self, theta: Vector, round_number: int, count: int) -> Reference:
        """∇L(θ) of `count` trajectories of the server's own, which nothing else of the round is made of."""
        batch = self.sample(theta, round_number, REFERENCE_STEP, count)
        sampled = Sampled()
        sampled.add(batch)
        with np.errstate(over="ignore", invalid="ignore"):
            gradient = self.estimate(theta, batch, self.advantages(batch)).gradient
        return Reference(gradient if np.isfinite(gradient).all() else None, sampled)

    def play_greedily(self, theta: Vector, round_number: int, count: int, step: int = 0) -> Trajectories:
        """`count` greedy episodes of π_θ, up to the evaluation horizon. Step 0 has those of the round's evaluation."""
        seeds = episode_seeds(self.stream(Purpose.EVALUATION, round_number, step), count)
        with self.environments.drawing(round_number, step, finite_rewards=False):
            return rollout(self.environments, self.policy, theta, self.task.evaluation_horizon, seeds, None)

    def advantages(self, batch: Trajectories) -> NDArray[np.float32]:
        """A of each step, shape (n,)."""
        return advantages(batch, self.task.gamma, self.task.baseline)

    def estimate(
        self,
        theta: Vector,
        batch: Trajectories,
        advantages: NDArray[np.float32],
        reference_log_probs: NDArray[np.float32] | None = None,
    ) -> Estimate:
        """∇L(θ), or with `reference_log_probs` (n,) ∇L_ω(θ): see `fedpg_common.learning.gradient.estimate`."""
        return estimate(self.policy, theta, batch, advantages, reference_log_probs)

    def step(self, state: State, v: Vector, report: InnerReport) -> State:
        """One Adam step against v, shape (d,), unless its result would not be finite; the report counts it.

        The learning rate is the report's, or else the task's.

        θ and Adam's moments remain finite: a mean is not a filter, and one accepted entry beyond about 1e20 has a
        square that would stop Adam for good.
        """
        rate = self.task.learning_rate if report.learning_rate is None else report.learning_rate
        stepped = adam_step(state, v, rate)
        if stepped is None:
            report.skipped_steps += 1
            return state
        report.steps_taken += 1
        return stepped
