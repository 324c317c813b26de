"""A round of learning in plain code, in float64, and a bench of small learners to hold against it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from fedpg_common.choices import Choice
from fedpg_common.environments import EnvironmentBatch
from fedpg_common.environments.rollouts import sample
from fedpg_common.federation import Federation
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import ParameterSpec, Vector
from fedpg_common.learning.policies import Policy
from fedpg_common.learning.streams import Purpose, Role, episode_seeds, stream
from fedpg_common.learning.trajectories import Trajectories
from fedpg_common.tasks import CARTPOLE
from fedpg_server.learning.learner import Learner
from fedpg_server.learning.state import ADAM_M, ADAM_V, THETA, State
from numpy.typing import NDArray

SEED = 7
SMALL_TASK = dataclasses.replace(
    CARTPOLE, hidden=(8,), horizon=30, evaluation_horizon=9, batch_size=10, batch_size_min=8, batch_size_max=12
)
ROUND = RoundPlan(round_number=3, batch_size=10, inner_steps=3)


@dataclasses.dataclass
class Bench:
    """Makes learners."""

    environments: EnvironmentBatch
    policy: Policy

    def learner(self, algorithm: str, agents: int = 5, learning_rate: float = SMALL_TASK.learning_rate) -> Learner:
        """A learner of the small task."""
        task = dataclasses.replace(SMALL_TASK, learning_rate=learning_rate)
        return Learner(Federation(task, agents, Choice(algorithm), seed=SEED), self.environments, self.policy)


def gradients(policy: Policy, agents: int = 5) -> dict[int, Vector]:
    """Gradients about a common one, as honest agents send."""
    rng = np.random.default_rng(1)
    common = 0.02 * rng.standard_normal(policy.spec.size)
    return {
        agent: (common + 0.002 * rng.standard_normal(policy.spec.size)).astype(np.float32)
        for agent in range(1, agents + 1)
    }


def mean(updates: Mapping[int, Vector]) -> NDArray[np.float64]:
    """The plain mean."""
    result: NDArray[np.float64] = np.stack(list(updates.values())).astype(np.float64).mean(axis=0)
    return result


def bits(state: State) -> tuple[bytes, bytes, bytes, int]:
    """The state's exact value."""
    return state.theta.tobytes(), state.vectors[ADAM_M].tobytes(), state.vectors[ADAM_V].tobytes(), state.steps


def plain_log_probs(theta: torch.Tensor, spec: ParameterSpec, batch: Trajectories) -> torch.Tensor:
    """Log π_θ(a|s) of each step: a ReLU network, logits through tanh."""
    x = torch.from_numpy(batch.observations).double()
    for number, (tensor, place) in enumerate(spec.slices()):
        if number % 2 == 0:
            x = torch.relu(x) if number else x
            x = x @ theta[place].view(tensor.shape).T
        else:
            x = x + theta[place]
    logits = torch.tanh(x)
    taken = logits[torch.arange(batch.steps), torch.from_numpy(batch.actions)]
    return taken - torch.exp(logits).sum(dim=1).log()


def plain_advantages(batch: Trajectories, gamma: float) -> NDArray[np.float64]:
    """Whitened reward-to-go, one trajectory after the other."""
    A = np.zeros(batch.steps)
    for episode in range(batch.count):
        steps = np.flatnonzero(batch.episodes == episode)
        R = [
            sum(gamma ** (later - t) * batch.rewards[steps[later]] for later in range(t, len(steps)))
            for t in range(len(steps))
        ]
        if len(R) > 1 and np.std(R) > 0:
            A[steps] = (R - np.mean(R)) / np.std(R, ddof=1)
    return A


def plain_gradient(
    theta: NDArray[np.float64], spec: ParameterSpec, batch: Trajectories, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The gradient at θ of −(1/n) Σ ω A log π_θ."""
    variable = torch.tensor(theta, requires_grad=True)
    terms = torch.from_numpy(weights * plain_advantages(batch, SMALL_TASK.gamma)) * plain_log_probs(
        variable, spec, batch
    )
    (gradient,) = torch.autograd.grad(-terms.sum() / batch.steps, variable)
    result: NDArray[np.float64] = gradient.numpy()
    return result


@dataclasses.dataclass
class PlainAdam:
    """Adam as Kingma and Ba wrote it down."""

    theta: NDArray[np.float64]
    m: NDArray[np.float64]
    v: NDArray[np.float64]
    t: int = 0

    @classmethod
    def at(cls, state: State) -> PlainAdam:
        """Adam at a learner's state."""
        theta, m, v = (state.vectors[name].astype(np.float64) for name in (THETA, ADAM_M, ADAM_V))
        return cls(theta, m, v, state.steps)

    def step(self, gradient: NDArray[np.float64], learning_rate: float) -> None:
        """One step of Algorithm 1."""
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        m_hat, v_hat = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        self.theta = self.theta - learning_rate * m_hat / (np.sqrt(v_hat) + 1e-8)


def plain_inner_loop(
    bench: Bench, state: State, mu: NDArray[np.float64] | None, learning_rate: float
) -> tuple[PlainAdam, list[float]]:
    """The loop of docs/algorithm.md, "Inner loop", and its mean importance ratios."""
    adam = PlainAdam.at(state)
    theta_0, spec = adam.theta, bench.policy.spec
    ratios = []
    for n in (1, 2, 3):
        batch = plain_batch(bench, adam.theta, n)
        v = plain_gradient(adam.theta, spec, batch, np.ones(batch.steps))
        if mu is not None:
            log_0 = plain_log_probs(torch.tensor(theta_0), spec, batch).numpy()
            weights = np.exp(log_0 - plain_log_probs(torch.tensor(adam.theta), spec, batch).numpy())
            ratios.append(float(weights.mean()))
            if abs(weights.mean() - 1) > 0.005:
                break
            v = v - plain_gradient(theta_0, spec, batch, weights) + mu
        adam.step(v, learning_rate)
    return adam, ratios


def plain_batch(bench: Bench, theta: NDArray[np.float64], n: int) -> Trajectories:
    """The b trajectories of inner step n."""
    streams = [
        stream(SEED, Role.SERVER, purpose, round_number=ROUND.round_number, step=n)
        for purpose in (Purpose.ENVIRONMENT, Purpose.ACTION)
    ]
    actor = bench.policy.actor(theta.astype(np.float32))
    seeds = episode_seeds(streams[0], SMALL_TASK.mini_batch_size)
    return sample(bench.environments, lambda seen: actor.sample(seen, streams[1]), SMALL_TASK.horizon, seeds)


def assert_close(state: State, adam: PlainAdam, learning_rate: float = SMALL_TASK.learning_rate) -> None:
    """Equal up to float32."""
    assert state.steps == adam.t
    np.testing.assert_allclose(state.theta, adam.theta, rtol=1e-5, atol=1e-3 * learning_rate)
    np.testing.assert_allclose(state.vectors[ADAM_M], adam.m, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(state.vectors[ADAM_V], adam.v, rtol=1e-3, atol=1e-10)
