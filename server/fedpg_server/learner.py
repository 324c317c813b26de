"""The algorithms: FedPG-BR, SVRPG and GPOMDP, from the agents' gradients to the next policy.

Fan et al. 2021, Algorithm 1; design.md section 2. No networking, no clock: a round's result follows from the state, the
updates and the run's seed alone, so that a round recomputed after a crash has the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.federation import Algorithm, Federation
from fedpg_common.gradient import advantages, estimate
from fedpg_common.parameters import Vector
from fedpg_common.policies import Policy
from fedpg_common.rollouts import rollout
from fedpg_common.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.trajectories import Trajectories
from torch.optim.adam import adam  # what torch.optim.Adam computes with; the class itself takes seconds to load

from fedpg_server.aggregation import Aggregate, fedpg_aggregate, mean_aggregate

IMPORTANCE_RATIO_RANGE = (0.995, 1.005)
"""Where the mean importance ratio of an inner batch must lie."""
EVALUATION_EPISODES = 10


@dataclass(frozen=True, eq=False)
class LearnerState:
    """All that one round hands to the next."""

    theta: Vector
    """θ, shape (d,)."""
    adam_m: Vector
    """Adam's running mean of the gradient, shape (d,)."""
    adam_v: Vector
    """Adam's running mean of the squared gradient, shape (d,)."""
    adam_steps: int


@dataclass(frozen=True)
class RoundPlan:
    """A round's random choices. The agents are told the batch size."""

    round_number: int
    batch_size: int
    """B_t, trajectories."""
    inner_steps: int
    """N_t; 0 for GPOMDP, which has no inner loop."""


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
    """What became of a round's optimisation steps; a list has one entry a batch, in order."""

    steps_taken: int = 0
    """Adam steps, GPOMDP's single one included."""
    skipped_steps: int = 0
    """Steps left out because float32 could not have held their result (see `Learner.improve`)."""
    aborted: bool = False
    """Whether the mean importance ratio left its range."""
    importance_ratios: list[float] = field(default_factory=list)
    """mean(ω), the dropped batch's included; empty when there was no μ to correct."""
    losses: list[float] = field(default_factory=list)
    """L(θ_n), the dropped batch's included."""
    gradient_norms: list[float] = field(default_factory=list)
    """‖v‖, without the dropped batch."""
    sampled: Sampled = field(default_factory=Sampled)
    """The batches that steps were made of."""
    dropped: Sampled = field(default_factory=Sampled)
    """The batch that was dropped."""


@dataclass(frozen=True, eq=False)
class RoundResult:
    """A round's outcome."""

    state: LearnerState
    aggregate: Aggregate
    gradient_norm: float
    """‖μ‖; 0 when no gradient survived."""
    inner: InnerReport
    trajectories: int
    """The round's trajectory count as on the x-axis of the published figures."""
    evaluation_returns: tuple[float, ...]
    """Undiscounted return of each greedy episode."""
    evaluation_lengths: tuple[int, ...]
    """Steps of each greedy episode."""
    learning_rate: float

    @property
    def evaluation_sampled(self) -> Sampled:
        """How much the evaluation sampled."""
        return Sampled(len(self.evaluation_lengths), sum(self.evaluation_lengths))


class Learner:
    """The server's side of the algorithms."""

    def __init__(self, federation: Federation, environments: EnvironmentBatch, policy: Policy) -> None:
        """`environments` are the server's own. Of the federation's attackers nothing is read."""
        self._task = federation.task
        self._agents = federation.agents
        self._algorithm = federation.algorithm
        self._seed = federation.seed
        self._environments = environments
        self._policy = policy

    def initial_state(self) -> LearnerState:
        """The state before round 1: θ drawn from the run's seed, Adam fresh."""
        theta = self._policy.initial_parameters(stream(self._seed, Role.SERVER, Purpose.INITIAL_PARAMETERS))
        return LearnerState(theta, np.zeros_like(theta), np.zeros_like(theta), adam_steps=0)

    def plan(self, round_number: int) -> RoundPlan:
        """B_t and N_t of a round, counted from 1."""
        if self._algorithm is Algorithm.GPOMDP:
            return RoundPlan(round_number, self._task.batch_size, inner_steps=0)
        if self._algorithm is Algorithm.SVRPG:
            return RoundPlan(round_number, self._task.batch_size, self._task.inner_steps)
        b = self._task.mini_batch_size
        B_t = int(
            self._stream(Purpose.BATCH_SIZE, round_number).integers(
                self._task.batch_size_min, self._task.batch_size_max, endpoint=True
            )
        )
        # Success probability b/(B_t + b) on {1, 2, …} (Lei et al. 2017).
        N_t = int(self._stream(Purpose.INNER_STEPS, round_number).geometric(b / (B_t + b)))
        return RoundPlan(round_number, B_t, N_t)

    def improve(self, state: LearnerState, plan: RoundPlan, updates: Mapping[int, Vector]) -> RoundResult:
        """Aggregate, improve the policy, evaluate it.

        `updates` are finite vectors (d,) by agent index, possibly none. If no gradient survives, the inner loop takes
        plain policy-gradient steps; GPOMDP, which has none, keeps θ for the round.

        θ and Adam's state remain finite. A step that would leave float32's range is not taken but counted: a mean is
        no filter, and one accepted entry beyond about 1e20 has a square that would stop Adam for good.
        """
        aggregate = self._aggregate(plan, updates)
        mu = aggregate.vector
        if self._algorithm is Algorithm.GPOMDP:
            report = InnerReport()
            improved = state if mu is None else self._step(state, mu, report)
        else:
            improved, report = self._inner_loop(state, plan, mu)
        evaluation = self._evaluate(improved.theta, plan.round_number)
        return RoundResult(
            state=improved,
            aggregate=aggregate,
            gradient_norm=0.0 if mu is None else _norm(mu),
            inner=report,
            trajectories=self._trajectory_count(plan),
            evaluation_returns=tuple(evaluation.returns().tolist()),
            evaluation_lengths=tuple(evaluation.lengths().tolist()),
            learning_rate=self._task.learning_rate,
        )

    def _aggregate(self, plan: RoundPlan, updates: Mapping[int, Vector]) -> Aggregate:
        """μ = Aggregate({μ^(k)}): FedPG-BR filters, SVRPG and GPOMDP average."""
        if self._algorithm is not Algorithm.FEDPG_BR:
            return mean_aggregate(updates)
        return fedpg_aggregate(
            updates,
            agents=self._agents,
            batch_size=plan.batch_size,
            sigma=self._task.sigma,
            delta=self._task.delta,
            alpha=self._task.alpha,
        )

    def _inner_loop(self, state: LearnerState, plan: RoundPlan, mu: Vector | None) -> tuple[LearnerState, InnerReport]:
        """N_t variance-reduced steps v = ∇L(θ_n) − ∇L_ω(θ_0) + μ, or without μ plain steps v = ∇L(θ_n)."""
        report = InnerReport()
        theta_0 = state.theta
        for n in range(1, plan.inner_steps + 1):
            batch = self._sample(state.theta, plan.round_number, n)
            A = advantages(batch, self._task.gamma)
            current = estimate(self._policy, state.theta, batch, A)
            report.losses.append(current.loss)
            v = current.gradient
            if mu is not None:
                with np.errstate(over="ignore", invalid="ignore"):  # the ratio and `_step` look at what comes of it
                    snapshot = estimate(self._policy, theta_0, batch, A, reference_log_probs=current.log_probs)
                    ratio = float(snapshot.weights.mean(dtype=np.float64))
                    v = current.gradient - snapshot.gradient + mu
                report.importance_ratios.append(ratio)
                # Written so that a ratio that is not a number is out of range, too.
                if not IMPORTANCE_RATIO_RANGE[0] <= ratio <= IMPORTANCE_RATIO_RANGE[1]:
                    report.aborted = True
                    report.dropped.add(batch)
                    break
            report.sampled.add(batch)
            report.gradient_norms.append(_norm(v))
            state = self._step(state, v, report)
        return state, report

    def _step(self, state: LearnerState, v: Vector, report: InnerReport) -> LearnerState:
        """One Adam step against v, unless its result would not be finite."""
        stepped = adam_step(state, v, self._task.learning_rate)
        if all(np.isfinite(part).all() for part in (stepped.theta, stepped.adam_m, stepped.adam_v)):
            report.steps_taken += 1
            return stepped
        report.skipped_steps += 1
        return state

    def _sample(self, theta: Vector, round_number: int, step: int) -> Trajectories:
        """B trajectories of π_θ for one inner step."""
        rng = self._stream(Purpose.ACTION, round_number, step)
        seeds = episode_seeds(self._stream(Purpose.ENVIRONMENT, round_number, step), self._task.mini_batch_size)
        return rollout(self._environments, self._policy, theta, self._task.horizon, seeds, rng)

    def _evaluate(self, theta: Vector, round_number: int) -> Trajectories:
        """Greedy episodes."""
        seeds = episode_seeds(self._stream(Purpose.EVALUATION, round_number), EVALUATION_EPISODES)
        return rollout(self._environments, self._policy, theta, self._task.evaluation_horizon, seeds, None)

    def _trajectory_count(self, plan: RoundPlan) -> int:
        """Trajectories per participant, the server included, with N_t as planned (design.md, "Trajectory count")."""
        K, B_t, b, N_t = self._agents, plan.batch_size, self._task.mini_batch_size, plan.inner_steps
        return round((B_t * K + b * N_t) / (K + 1)) if K > 1 else B_t + b * N_t

    def _stream(self, purpose: Purpose, round_number: int, step: int = 0) -> np.random.Generator:
        return stream(self._seed, Role.SERVER, purpose, round_number=round_number, step=step)


def adam_step(state: LearnerState, gradient: Vector, learning_rate: float) -> LearnerState:
    """One step of Adam (Kingma & Ba 2015; PyTorch's default settings) against `gradient` (d,). Changes no input.

    The result is not finite where float32 cannot hold it.
    """
    theta, m, v = (torch.tensor(part) for part in (state.theta, state.adam_m, state.adam_v))
    steps = torch.tensor(float(state.adam_steps))
    adam(
        [theta], [torch.tensor(gradient)], [m], [v], [], [steps], foreach=False, amsgrad=False, beta1=0.9, beta2=0.999,
        lr=learning_rate, weight_decay=0.0, eps=1e-8, maximize=False,
    )  # fmt: skip
    return LearnerState(theta.numpy(), m.numpy(), v.numpy(), int(steps))


def _norm(vector: Vector) -> float:
    """Euclidean norm, in float64."""
    return math.sqrt(np.square(vector, dtype=np.float64).sum())
