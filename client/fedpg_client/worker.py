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
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import Task

from fedpg_client.attacks import Attack, Attacker, Context

LARGE_OBSERVATION = 1e6


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

    def work(self, round_number: int, batch_size: int, theta: Vector) -> Update:
        """Sample `batch_size` trajectories with π_θ and estimate ∇L(θ), both as the agent's attack has it.

        `theta` has shape (d,). docs/algorithm.md, "Gradient estimate".
        """
        attack = self.attacker.in_round(round_number)
        context = self._context(round_number, batch_size, theta)
        seeds = episode_seeds(self._stream(Purpose.ENVIRONMENT, round_number), batch_size)
        with self.environments.drawing(round_number):
            if type(attack).choose is Attack.choose:  # it follows the policy, which can be compiled
                sampled = rollout(self.environments, self.policy, theta, self.task.horizon, seeds, context.actions)
            else:
                choose = attack.choose(self.policy.actor(theta), self.policy.action_space, context)
                sampled = sample(self.environments, choose, self.task.horizon, seeds)
        trajectories = attack.tamper_trajectories(sampled, context)
        weights = policy_gradient.advantages(trajectories, self.task.gamma, self.task.baseline)
        estimate = policy_gradient.estimate(self.policy, theta, trajectories, weights)
        self._check_overflow(estimate.gradient, sampled)
        gradient = attack.tamper_gradient(estimate.gradient, context)
        gradient = self.attacker.agree(gradient, context)
        return Update(
            gradient=gradient,
            trajectories=sampled.count,
            environment_steps=sampled.steps,
            mean_return=float(sampled.returns().mean()),
            mean_length=float(sampled.lengths().mean()),
            loss=estimate.loss,
        )

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

    def _context(self, round_number: int, batch_size: int, theta: Vector) -> Context:
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
            recompute=self._recompute(round_number, batch_size, theta),
            aggregator=self.attacker.aggregator,
        )

    def _recompute(self, round_number: int, batch_size: int, theta: Vector) -> Callable[[int], Vector] | None:
        """What computes any agent's honest gradient of this round, for who has the run's seed."""
        run_seed = self.attacker.run_seed
        if run_seed is None:
            return None

        def recompute(agent: int) -> Vector:
            honest = replace(self, agent=agent, seed=agent_seed(run_seed, agent), attacker=Attacker())
            return honest.work(round_number, batch_size, theta).gradient

        return recompute

    def _stream(self, purpose: Purpose, round_number: int) -> np.random.Generator:
        return stream(self.seed, Role.AGENT, purpose, agent=self.agent, round_number=round_number)
