"""Agents and servers whose estimates build on the round before, and the product that they need, by torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fedpg_client.attacks import Attacker
from fedpg_client.worker import Worker
from fedpg_common.choices import Choice
from fedpg_common.derived_seeds import agent_seed
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.environments.rollouts import sample
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import GaussianPolicy, Policy
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.learner import Learner
from fedpg_server.learning.state import State
from numpy.typing import NDArray

SEED, AGENTS, ROUND, BATCH = 7, 5, 3, 5
TASK = dataclasses.replace(CARTPOLE, hidden=(8,), horizon=40, evaluation_horizon=9, activation="tanh")
Numbers = NDArray[np.float64]


@dataclasses.dataclass
class Bench:
    """Makes learners and agents of the small task."""

    environments: EnvironmentBatch
    policy: Policy

    def learner(self, algorithm: str, aggregator: str = "mean", **settings: Any) -> Learner:
        """A learner with these parts."""
        federation = Federation(TASK, AGENTS, Choice(algorithm, settings), Choice(aggregator), seed=SEED)
        return Learner(federation, self.environments, self.policy)

    def worker(self, agent: int, attacker: Attacker | None = None) -> Worker:
        """An agent of the federation, honest unless told otherwise."""
        seed = agent_seed(SEED, agent)
        return Worker(agent, AGENTS, seed, TASK, self.policy, self.environments, attacker or Attacker())

    def theta(self, seed: int = 0, near: Vector | None = None) -> Vector:
        """Parameters, or others at the distance of a step."""
        rng = np.random.default_rng(seed)
        if near is None:
            return self.policy.initial_parameters(rng)
        return (near + 0.01 * rng.standard_normal(near.size)).astype(np.float32)

    def batch(self, theta: Vector, agent: int, count: int, step: int) -> Trajectories:
        """What an agent samples in the round, by hand."""
        streams = {
            purpose: stream(agent_seed(SEED, agent), Role.AGENT, purpose, agent=agent, round_number=ROUND, step=step)
            for purpose in (Purpose.ENVIRONMENT, Purpose.ACTION)
        }
        actor, seeds = self.policy.actor(theta), episode_seeds(streams[Purpose.ENVIRONMENT], count)
        return sample(self.environments, lambda seen: actor.sample(seen, streams[Purpose.ACTION]), TASK.horizon, seeds)


def exact_product(
    policy: Policy, theta: Vector, direction: Vector, batch: Trajectories, A: NDArray[np.float32]
) -> Numbers:
    """Σ_i ⟨∇ log p(τ_i), u⟩ ∇Φ_i + ∇²Φ_i u, differentiated twice by torch, trajectory by trajectory, in float64."""
    u = torch.tensor(direction, dtype=torch.float64)
    actions = torch.tensor(batch.actions)
    actions = actions.double() if isinstance(policy, GaussianPolicy) else actions
    result = torch.zeros_like(u)
    for episode in range(batch.count):
        variable = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        rows = torch.tensor(batch.episodes == episode)
        observations = torch.tensor(batch.observations, dtype=torch.float64)[rows]
        log_probs = policy.log_prob(variable, observations, actions[rows])
        phi = -(torch.tensor(A, dtype=torch.float64)[rows] * log_probs).sum() / batch.steps
        (score,) = torch.autograd.grad(log_probs.sum(), variable, retain_graph=True)
        (slope,) = torch.autograd.grad(phi, variable, create_graph=True)
        (curvature,) = torch.autograd.grad(slope @ u, variable)
        result += (score @ u) * slope.detach() + curvature
    numbers: Numbers = result.numpy()
    return numbers


def play(learner: Learner, bench: Bench, rounds: range, state: State, absent: Mapping[int, int]) -> State:
    """Rounds of honest agents; `absent` names one that does not vote, by round."""
    for number in rounds:
        plan = learner.plan(number)
        recursion = learner.recursion(state, plan)
        updates = {
            agent: bench.worker(agent).work(number, plan.batch_size, state.theta, recursion).gradient
            for agent in range(1, AGENTS + 1)
            if absent.get(number) != agent
        }
        state = learner.improve(state, plan, updates).state
    return state
