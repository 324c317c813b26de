"""What an agent computes in a round: trajectories in its own environment, and their gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from fedpg_common.derived_seeds import agent_seed
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.environments.rollouts import rollout, sample
from fedpg_common.errors import EnvironmentFailedError
from fedpg_common.learning import gradient as policy_gradient
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy
from fedpg_common.learning.recursion import Kind, Recursion, between, difference, hessian_product, momentum_part
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.learning.trajectories import Trajectories, joined
from fedpg_common.speeds import Speed
from fedpg_common.tasks import Task

from fedpg_client.attacks import Attack, Attacker, Context
from fedpg_client.pace import Budget

LARGE_OBSERVATION = 1e6
WHOLE, ELSEWHERE, CHUNKS = 0, 1, 2
"""Numbers of the random streams of a batch at θ_0, of one at another point, and of the first of a batch's chunks."""


@dataclass(frozen=True)
class Update:
    """One round's work of one agent."""

    gradient: Vector
    """What to submit, shape (d,)."""
    trajectories: int
    environment_steps: int
    mean_return: float
    mean_length: float
    loss: float
    spoilt_by_attack: bool = False
    """Whether it is for the agent's attack to explain, should the gradient not be finite."""


@dataclass
class _Work:
    """What an agent samples in a round, before its attack tampers with it."""

    sampled: list[Trajectories] = field(default_factory=list)

    @property
    def trajectories(self) -> int:
        return sum(batch.count for batch in self.sampled)


@dataclass(frozen=True)
class Worker:
    """An agent without its network: the same round always gives the same update."""

    agent: int
    agents: int
    """K."""
    seed: int
    """Of this agent's own streams."""
    task: Task
    policy: Policy
    environments: EnvironmentBatch
    attacker: Attacker = field(default_factory=Attacker)
    """By default an honest agent."""
    speed: Speed = field(default_factory=Speed)
    """How much of a round's batch it samples."""

    def work(
        self,
        round_number: int,
        batch_size: int,
        theta: Vector,
        recursion: Recursion | None = None,
        budget: Budget | None = None,
    ) -> Update:
        """Sample trajectories and estimate what the round asks for, both as the agent's attack has it.

        They are `batch_size`, B_t, or as many as the agent's speed allows; fewer of them, and of these as many as there
        is time for, where the speed has a minimum and there is a `budget`. `theta` has shape (d,). Without a recursion
        the estimate is ∇L(θ). docs/algorithm.md, "Gradient estimate".
        """
        attack = self.attacker.in_round(round_number)
        context = self._context(round_number, batch_size, theta, recursion)
        work = _Work()
        product = None
        count, fewest = self.speed.most(batch_size), self.speed.fewest(batch_size)
        if recursion is not None and recursion.kind is Kind.MOMENTUM:
            product = self._hessian_product(attack, context, recursion, work, count // 2)
            fewest = count  # with half of it sampled elsewhere, a part of the batch is no smaller batch
        if fewest < count:
            batch = self._sample_in_chunks(attack, context, count, fewest, work, budget)
        else:
            batch = self._sample(attack, context, count - work.trajectories, work)
        weights = policy_gradient.advantages(batch, self.task.gamma, self.task.baseline)
        estimate = policy_gradient.estimate(self.policy, theta, batch, weights)
        gradient = estimate.gradient
        self._check_overflow(gradient, work.sampled[-1])
        if recursion is not None and recursion.kind is Kind.DIFFERENCE:
            gradient = difference(self.policy, batch, weights, estimate, recursion)
        elif recursion is not None and product is not None:
            gradient = momentum_part(gradient, product, recursion.weight)
        is_own = not np.isfinite(gradient).all() and not _tampers_with_trajectories(attack)
        gradient = attack.tamper_gradient(gradient, context)
        gradient = self.attacker.agree(gradient, context)
        return Update(
            gradient=gradient,
            trajectories=work.trajectories,
            environment_steps=sum(sampled.steps for sampled in work.sampled),
            mean_return=float(np.concatenate([sampled.returns() for sampled in work.sampled]).mean()),
            mean_length=float(np.concatenate([sampled.lengths() for sampled in work.sampled]).mean()),
            loss=estimate.loss,
            spoilt_by_attack=not is_own,
        )

    def _sample_in_chunks(
        self, attack: Attack, context: Context, count: int, size: int, work: _Work, budget: Budget | None
    ) -> Trajectories:
        """Up to `count` trajectories, as many as the budget allows: `size` at a time, and as many at least.

        Each chunk has streams of its own, so that the trajectories of a shorter work are the first of a longer one's.
        """
        chunks: list[Trajectories] = []
        while (left := count - work.trajectories) > 0:
            following = min(size, left)
            if chunks and budget is not None and not budget.allows(chunks[-1].count, following):
                break
            step = CHUNKS + len(chunks)
            actions = self._stream(Purpose.ACTION, context.round_number, step)
            chunks.append(self._sample(attack, replace(context, actions=actions), following, work, step))
        return joined(chunks)

    def _sample(self, attack: Attack, context: Context, count: int, work: _Work, step: int = WHOLE) -> Trajectories:
        """`count` trajectories of the policy at `context.theta`, as the attack has them; `step` names their streams."""
        seeds = episode_seeds(self._stream(Purpose.ENVIRONMENT, context.round_number, step), count)
        with self.environments.drawing(context.round_number, step):
            if type(attack).choose is Attack.choose:  # it follows the policy, which can be compiled
                horizon, theta = self.task.horizon, context.theta
                sampled = rollout(self.environments, self.policy, theta, horizon, seeds, context.actions)
            else:
                choose = attack.choose(self.policy.actor(context.theta), self.policy.action_space, context)
                sampled = sample(self.environments, choose, self.task.horizon, seeds)
        work.sampled.append(sampled)
        return attack.tamper_trajectories(sampled, context)

    def _hessian_product(
        self, attack: Attack, context: Context, recursion: Recursion, work: _Work, count: int
    ) -> Vector:
        """The Hessian's product with the last step, (d,), of `count` of the round's trajectories, half of them.

        They are sampled at a random point of that step: on average, the product is the change of the gradient.
        """
        if count == 0:
            return np.zeros_like(context.theta)
        q = self._stream(Purpose.INTERPOLATION, context.round_number).random()
        point = between(recursion.previous, context.theta, q)
        actions = self._stream(Purpose.ACTION, context.round_number, ELSEWHERE)
        there = replace(context, theta=point, actions=actions)
        batch = self._sample(attack, there, count, work, ELSEWHERE)
        weights = policy_gradient.advantages(batch, self.task.gamma, self.task.baseline)
        return hessian_product(self.policy, point, context.theta - recursion.previous, batch, weights)

    def _check_overflow(self, gradient: Vector, sampled: Trajectories) -> None:
        """Raise EnvironmentFailedError if observations are so large that the gradient is not finite.

        With observations of a usual size it is the parameters that are too large, for which no environment is to blame.
        """
        if not np.isfinite(gradient).all():
            largest = float(np.abs(sampled.observations).max())
            if largest > LARGE_OBSERVATION:
                raise EnvironmentFailedError(
                    f"task {self.task.name}: environment {self.task.environment} gives observations as large as "
                    f"{largest:g}, with which the gradient is beyond what float32 can hold: scale them"
                )

    def _context(self, round_number: int, batch_size: int, theta: Vector, recursion: Recursion | None) -> Context:
        return Context(
            agent=self.agent,
            agents=self.agents,
            attackers=self.attacker.attackers or (self.agent,),
            round_number=round_number,
            batch_size=batch_size,
            task=self.task,
            policy=self.policy,
            theta=theta,
            actions=self._stream(Purpose.ACTION, round_number),
            rng=self._stream(Purpose.ATTACK, round_number),
            common=self.attacker.common_stream(self.agent, round_number),
            run_seed=self.attacker.run_seed,
            recompute=self._recompute(round_number, batch_size, theta, recursion),
            aggregator=self.attacker.aggregator,
        )

    def _recompute(
        self, round_number: int, batch_size: int, theta: Vector, recursion: Recursion | None
    ) -> Callable[[int], Vector] | None:
        """What computes any agent's honest gradient of this round, for who has the run's seed."""
        run_seed = self.attacker.run_seed
        if run_seed is None:
            return None

        def recompute(agent: int) -> Vector:
            honest = replace(self, agent=agent, seed=agent_seed(run_seed, agent), attacker=Attacker())
            return honest.work(round_number, batch_size, theta, recursion).gradient

        return recompute

    def _stream(self, purpose: Purpose, round_number: int, step: int = 0) -> np.random.Generator:
        return stream(self.seed, Role.AGENT, purpose, agent=self.agent, round_number=round_number, step=step)


def _tampers_with_trajectories(attack: Attack) -> bool:
    return type(attack).tamper_trajectories is not Attack.tamper_trajectories
