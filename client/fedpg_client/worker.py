"""What an agent computes in a round: trajectories in its own environment, and their gradient."""

from __future__ import annotations

from dataclasses import dataclass

from fedpg_common import gradient as policy_gradient
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.parameters import Vector
from fedpg_common.policies import Policy
from fedpg_common.rollouts import rollout, sample
from fedpg_common.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.tasks import Task

from fedpg_client.attacks import Behaviour


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
    seed: int
    """Of the run."""
    task: Task
    policy: Policy
    environments: EnvironmentBatch
    behaviour: Behaviour

    def work(self, round_number: int, batch_size: int, theta: Vector) -> Update:
        """Sample `batch_size` trajectories with π_θ and estimate ∇L(θ), both as the agent's behaviour has it.

        `theta` has shape (d,). Design.md section 2, round step 2.
        """
        seeds = episode_seeds(stream(self.seed, Role.AGENT, Purpose.ENVIRONMENT, **self._at(round_number)), batch_size)
        actions = stream(self.seed, Role.AGENT, Purpose.ACTION, **self._at(round_number))
        tampering = stream(self.seed, Role.AGENT, Purpose.ATTACK, **self._at(round_number))
        if type(self.behaviour).choose is Behaviour.choose:
            sampled = rollout(self.environments, self.policy, theta, self.task.horizon, seeds, actions)
        else:
            choose = self.behaviour.choose(self.policy.actor(theta), self.policy.action_space, actions)
            sampled = sample(self.environments, choose, self.task.horizon, seeds)
        trajectories = self.behaviour.tamper_trajectories(sampled, tampering)
        weights = policy_gradient.advantages(trajectories, self.task.gamma)
        estimate = policy_gradient.estimate(self.policy, theta, trajectories, weights)
        gradient = self.behaviour.tamper_gradient(estimate.gradient, self.policy.spec, tampering)
        agreement = stream(self.seed, Role.ATTACKERS, Purpose.ATTACK, round_number=round_number)
        gradient = self.behaviour.collude(gradient, round_number, agreement)
        return Update(
            gradient=gradient,
            trajectories=sampled.count,
            environment_steps=sampled.steps,
            mean_return=float(sampled.returns().mean()),
            mean_length=float(sampled.lengths().mean()),
            loss=estimate.loss,
        )

    def _at(self, round_number: int) -> dict[str, int]:
        return {"agent": self.agent, "round_number": round_number}
