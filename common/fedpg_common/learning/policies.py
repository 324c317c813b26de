"""Policies over one flat parameter vector θ (docs/algorithm.md, "Policies").

Each distribution is written twice: `log_prob` in torch says what it is, and can be differentiated as one likes; `actor`
and `score` are what an agent spends its time in, and are tested against it. So torch, which takes seconds and hundreds
of megabytes to load, is imported by the former alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from numpy.typing import NDArray

from fedpg_common.checks import show
from fedpg_common.errors import UsageError
from fedpg_common.learning.gaussian import (
    LOG_PROB_FLOOR,
    LOG_SQRT_2PI,
    LOG_STD_RANGE,
    GaussianActor,
    GaussianLikelihood,
    GaussianNetwork,
)
from fedpg_common.learning.kernels import Mlp, kernels
from fedpg_common.learning.networks import Array, layer_tensors
from fedpg_common.learning.parameters import PARAMETERS_MAX, ParameterSpec, TensorSpec, Vector
from fedpg_common.tasks import Task

if TYPE_CHECKING:
    import torch

ROWS_AT_ONCE = 4096
"""Steps that pass through the policy together: enough to be fast, few enough to stay in the processor's cache."""


class Actor(Protocol):
    """A policy at fixed parameters, for acting.

    Observations are (n, D) float32; actions are (n,) int64 for a discrete policy, (n, A) float32 for a continuous one.
    """

    def sample(self, observations: Array, rng: np.random.Generator) -> NDArray[Any]:
        """Draw one action a row."""
        ...

    def greedy(self, observations: Array) -> NDArray[Any]:
        """The most likely action of each row."""
        ...


@dataclass(frozen=True)
class Score:
    """Σ_t c_t ∇_θ log π_θ(a_t|s_t) over n steps, with c_t = A_t ω_t · scale, and what it was made of."""

    gradient: Vector
    """Shape (d,)."""
    log_probs: Array
    """log π_θ(a|s) of each step, shape (n,)."""
    ratios: Array
    """ω of each step, shape (n,): exp(log π_θ − reference), or 1 without a reference."""


class Policy(ABC):
    """A family of action distributions, parametrised by θ ∈ R^d."""

    spec: ParameterSpec
    action_space: Discrete[Any] | Box

    def initial_parameters(self, rng: np.random.Generator) -> Vector:
        """θ with every tensor uniform in ±1/√(size of its last dimension), shape (d,)."""
        theta = np.empty(self.spec.size, dtype=np.float32)
        for tensor, place in self.spec.slices():
            bound = 1.0 / math.sqrt(tensor.shape[-1])
            theta[place] = rng.uniform(-bound, bound, tensor.size)
        return theta

    @abstractmethod
    def actor(self, theta: Vector) -> Actor:
        """The policy at θ (d,), which is copied."""

    @abstractmethod
    def score(
        self,
        theta: Vector,
        observations: Array,
        actions: NDArray[Any],
        advantages: Array,
        scale: float,
        reference: Array | None = None,
    ) -> Score:
        """The score of θ (d,) on observations (n, D) and their actions (n,) or (n, A), with advantages (n,).

        Of an action that was so unlikely under the reference (n,) that ω overflows, it is not finite.
        """

    @abstractmethod
    def log_prob(self, theta: torch.Tensor, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """The log-probability log π_θ(a|s) of each row, shape (n,), differentiable in `theta` (d,)."""

    def _tensors(self, theta: torch.Tensor) -> list[torch.Tensor]:
        return [theta[place].view(tensor.shape) for tensor, place in self.spec.slices()]


class CategoricalPolicy(Policy):
    """Discrete actions: an MLP whose logits pass through tanh."""

    def __init__(self, task: Task, observation_size: int, action_space: Discrete[Any]) -> None:
        """A policy for observations of `observation_size` numbers with the task's hidden layers."""
        self.action_space = action_space
        self.sizes = (observation_size, *task.hidden, int(action_space.n))
        self.spec = ParameterSpec(layer_tensors(self.sizes))
        self.activation = task.activation

    def actor(self, theta: Vector) -> CategoricalActor:
        """See `Policy.actor`."""
        return CategoricalActor(self.sizes, self.activation, theta)

    def score(
        self,
        theta: Vector,
        observations: Array,
        actions: NDArray[Any],
        advantages: Array,
        scale: float,
        reference: Array | None = None,
    ) -> Score:
        """See `Policy.score`; `actions` is (n,) int64, counted from 0."""
        return Score(*self._open(theta).gradient(observations, actions, advantages, reference, scale))

    def _open(self, theta: Vector) -> Mlp:
        return kernels().open_mlp(self.sizes, self.activation, theta)

    def log_prob(self, theta: torch.Tensor, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """See `Policy.log_prob`; `actions` is (n,) int64, counted from 0."""
        logits = _forward(self._tensors(theta), observations, self.activation).tanh()
        return logits.log_softmax(dim=1).gather(1, actions[:, None]).squeeze(1)


class GaussianPolicy(Policy):
    """Continuous actions: an MLP trunk h, then mean = tanh(W_μ h) and std = tanh(exp(clamp(W_σ h, −20, −2)))."""

    def __init__(self, task: Task, observation_size: int, action_space: Box) -> None:
        """A policy for observations of `observation_size` numbers with the task's hidden layers."""
        self.action_space = action_space
        size = math.prod(action_space.shape)
        sizes = (observation_size, *task.hidden)
        heads = (TensorSpec("mean.weight", (size, sizes[-1])), TensorSpec("std.weight", (size, sizes[-1])))
        self.spec = ParameterSpec((*layer_tensors(sizes), *heads))
        self._activation = task.activation

    def actor(self, theta: Vector) -> Actor:
        """See `Policy.actor`."""
        return GaussianActor(GaussianNetwork(self.spec, theta, self._activation))

    def score(
        self,
        theta: Vector,
        observations: Array,
        actions: NDArray[Any],
        advantages: Array,
        scale: float,
        reference: Array | None = None,
    ) -> Score:
        """See `Policy.score`; `actions` is (n, A) float32."""
        gradient = np.zeros(self.spec.size, np.float32)
        log_probs, ratios = np.empty(len(actions), np.float32), np.ones(len(actions), np.float32)
        network = GaussianNetwork(self.spec, theta, self._activation)
        for start in range(0, len(actions), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            likelihood = GaussianLikelihood(self.spec, network, observations[rows], actions[rows])
            log_probs[rows] = likelihood.log_probs
            if reference is not None:
                with np.errstate(over="ignore"):
                    ratios[rows] = np.exp(likelihood.log_probs - reference[rows])
            gradient += likelihood.gradient(advantages[rows] * ratios[rows] * np.float32(scale))
        return Score(gradient, log_probs, ratios)

    def log_prob(self, theta: torch.Tensor, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """See `Policy.log_prob`; `actions` is (n, A) float32. Each dimension is floored at −1e5, then summed."""
        *trunk, w_mean, w_std = self._tensors(theta)
        h = _forward(trunk, observations, self._activation)
        mean = (h @ w_mean.T).tanh()
        std = (h @ w_std.T).clamp(*LOG_STD_RANGE).exp().tanh()
        log_prob = -0.5 * ((actions - mean) / std).square() - std.log() - LOG_SQRT_2PI
        return log_prob.clamp(min=LOG_PROB_FLOOR).sum(dim=1)


def make_policy(task: Task, observation_size: int, action_space: Space[Any]) -> Policy:
    """The policy for that kind of action space.

    Raises UsageError for one that is neither Discrete, with two actions or more, nor Box, and for more parameters than
    a message holds; nothing of their size has been allocated by then.
    """
    policy: Policy
    if isinstance(action_space, Discrete):
        if action_space.n < 2:
            raise UsageError(f"task {task.name}: there must be two actions to choose from, not {action_space.n}")
        policy = CategoricalPolicy(task, observation_size, action_space)
    elif isinstance(action_space, Box):
        policy = GaussianPolicy(task, observation_size, action_space)
    else:
        raise UsageError(f"task {task.name}: actions must be Discrete or Box, not {type(action_space).__name__}")
    if policy.spec.size > PARAMETERS_MAX:
        raise UsageError(
            f"task {task.name}: the policy has {policy.spec.size} parameters, a message holds at most "
            f"{PARAMETERS_MAX}: choose smaller layers than hidden = {show(list(task.hidden))}"
        )
    return policy


def _forward(tensors: list[torch.Tensor], x: torch.Tensor, activation: str) -> torch.Tensor:
    """The linear layers given as weight, bias, weight, bias, …, with the activation between them."""
    for start in range(0, len(tensors), 2):
        if start:
            x = x.relu() if activation == "relu" else x.tanh()
        x = x @ tensors[start].T + tensors[start + 1]
    return x


class CategoricalActor:
    """A categorical policy at fixed parameters. It can be pickled for another process."""

    def __init__(self, sizes: tuple[int, ...], activation: str, theta: Vector) -> None:
        """The network with layers between `sizes` at θ (d,), which is copied."""
        self._made_of = sizes, activation, theta.copy()
        self.mlp = kernels().open_mlp(sizes, activation, theta)

    def __reduce__(self) -> tuple[type[CategoricalActor], tuple[tuple[int, ...], str, Vector]]:
        """Its network is opened again there."""
        return CategoricalActor, self._made_of

    def sample(self, observations: Array, rng: np.random.Generator) -> NDArray[np.int64]:
        """Invert the cumulative distribution at one uniform number per row."""
        return self.mlp.act(observations, rng.random(len(observations), np.float32))

    def greedy(self, observations: Array) -> NDArray[np.int64]:
        """The first of the most likely actions."""
        return self.mlp.act(observations, None)
