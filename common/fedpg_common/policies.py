"""Policies over one flat parameter vector θ (design.md section 2, "Policies").

Each policy is written twice: in torch, differentiable, for the gradient of a whole batch; and in numpy, for acting in
the lock-step loop, where a batch of a few dozen rows is dominated by the cost of a call.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, Space
from numpy.typing import NDArray

from fedpg_common.errors import UsageError
from fedpg_common.parameters import ParameterSpec, TensorSpec, Vector
from fedpg_common.tasks import Task

LOG_PROB_FLOOR = -1e5
"""Least log-probability of one dimension of a Gaussian action."""
LOG_STD_RANGE = (-20.0, -2.0)
_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)

_TORCH_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


class Actor(Protocol):
    """A policy at fixed parameters, for acting: no autograd.

    Observations are (n, D) float32; actions are (n,) int64 for a discrete policy, (n, A) float32 for a continuous one.
    """

    def sample(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[Any]:
        """Draw one action a row."""
        ...

    def greedy(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        """The most likely action of each row."""
        ...


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
    def log_prob(self, theta: torch.Tensor, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """The log-probability log π_θ(a|s) of each row, shape (n,), differentiable in `theta` (d,)."""

    def _tensors(self, theta: torch.Tensor) -> list[torch.Tensor]:
        # One split has one backward, which writes the gradient once; slices would each add a vector of length d.
        parts = torch.split(theta, [tensor.size for tensor in self.spec.tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, self.spec.tensors, strict=True)]


class CategoricalPolicy(Policy):
    """Discrete actions: an MLP whose logits pass through tanh."""

    def __init__(self, task: Task, observation_size: int, action_space: Discrete[Any]) -> None:
        """A policy for observations of `observation_size` numbers with the task's hidden layers."""
        self.action_space = action_space
        self.spec = ParameterSpec(tuple(_layers((observation_size, *task.hidden, int(action_space.n)))))
        self._activation = task.activation

    def actor(self, theta: Vector) -> Actor:
        """See `Policy.actor`."""
        return _CategoricalActor(_Network(self.spec, theta, self._activation))

    def log_prob(self, theta: torch.Tensor, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """See `Policy.log_prob`; `actions` is (n,) int64, counted from 0."""
        logits = torch.tanh(_forward(self._tensors(theta), observations, self._activation))
        return torch.log_softmax(logits, dim=1).gather(1, actions[:, None]).squeeze(1)


class GaussianPolicy(Policy):
    """Continuous actions: an MLP trunk h, then mean = tanh(W_μ h) and std = tanh(exp(clamp(W_σ h, −20, −2)))."""

    def __init__(self, task: Task, observation_size: int, action_space: Box) -> None:
        """A policy for observations of `observation_size` numbers with the task's hidden layers."""
        self.action_space = action_space
        size = math.prod(action_space.shape)
        sizes = (observation_size, *task.hidden)
        heads = (TensorSpec("mean.weight", (size, sizes[-1])), TensorSpec("std.weight", (size, sizes[-1])))
        self.spec = ParameterSpec((*_layers(sizes), *heads))
        self._activation = task.activation

    def actor(self, theta: Vector) -> Actor:
        """See `Policy.actor`."""
        tensors = self.spec.views(theta)
        network = _Network(self.spec, theta, self._activation)
        return _GaussianActor(network, tensors["mean.weight"].copy(), tensors["std.weight"].copy())

    def log_prob(self, theta: torch.Tensor, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """See `Policy.log_prob`; `actions` is (n, A) float32. Each dimension is floored at −1e5, then summed."""
        *trunk, w_mean, w_std = self._tensors(theta)
        h = _forward(trunk, observations, self._activation)
        mean = torch.tanh(h @ w_mean.T)
        std = torch.tanh(torch.exp(torch.clamp(h @ w_std.T, *LOG_STD_RANGE)))
        log_prob = -0.5 * ((actions - mean) / std).square() - torch.log(std) - _LOG_SQRT_2PI
        return log_prob.clamp(min=LOG_PROB_FLOOR).sum(dim=1)


def make_policy(task: Task, observation_size: int, action_space: Space[Any]) -> Policy:
    """The policy for that kind of action space. Raises UsageError for one that is neither Discrete nor Box."""
    if isinstance(action_space, Discrete):
        return CategoricalPolicy(task, observation_size, action_space)
    if isinstance(action_space, Box):
        return GaussianPolicy(task, observation_size, action_space)
    raise UsageError(f"task {task.name}: actions must be Discrete or Box, not {type(action_space).__name__}")


def _layers(sizes: tuple[int, ...]) -> list[TensorSpec]:
    """Weight (out, in) and bias (out,) of each linear layer between consecutive sizes."""
    return [
        tensor
        for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes))
        for tensor in (
            TensorSpec(f"layers.{number}.weight", (outputs, inputs)),
            TensorSpec(f"layers.{number}.bias", (outputs,)),
        )
    ]


def _forward(tensors: list[torch.Tensor], x: torch.Tensor, activation: str) -> torch.Tensor:
    """The linear layers given as weight, bias, weight, bias, …, with the activation between them."""
    for start in range(0, len(tensors), 2):
        if start:
            x = _TORCH_ACTIVATIONS[activation](x)
        x = torch.nn.functional.linear(x, tensors[start], tensors[start + 1])
    return x


class _Network:
    """`_forward` in numpy."""

    def __init__(self, spec: ParameterSpec, theta: Vector, activation: str) -> None:
        views = spec.views(theta)
        layers = [name.removesuffix(".bias") for name in views if name.endswith(".bias")]
        self._layers = [(views[f"{name}.weight"].T.copy(), views[f"{name}.bias"].copy()) for name in layers]
        self._relu = activation == "relu"

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The last layer's output for inputs (n, D)."""
        for number, (weight, bias) in enumerate(self._layers):
            if number:
                x = np.maximum(x, 0.0, out=x) if self._relu else np.tanh(x, out=x)
            x = x @ weight
            x += bias
        return x


class _CategoricalActor:
    def __init__(self, network: _Network) -> None:
        self._network = network

    def sample(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
        """Invert the cumulative distribution at one uniform number a row."""
        # Logits lie in [-1, 1], so their exponentials need no shift, and a cumulative sum no normalising.
        logits = self._network(observations)
        cumulative = np.exp(np.tanh(logits, out=logits), out=logits).cumsum(axis=1)
        points = rng.random((len(cumulative), 1), dtype=np.float32) * cumulative[:, -1:]
        # The last bound is left out: rounding may put a point on it.
        actions: NDArray[np.int64] = (cumulative[:, :-1] <= points).sum(axis=1)
        return actions

    def greedy(self, observations: NDArray[np.float32]) -> NDArray[np.int64]:
        """The first of the most likely actions."""
        actions: NDArray[np.int64] = np.tanh(self._network(observations)).argmax(axis=1)
        return actions


class _GaussianActor:
    def __init__(self, network: _Network, w_mean: NDArray[np.float32], w_std: NDArray[np.float32]) -> None:
        self._network = network
        self._w_mean = w_mean.T.copy()
        self._w_std = w_std.T.copy()

    def sample(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Mean plus standard deviation times a standard normal draw."""
        h = self._network(observations)
        std = np.tanh(np.exp(np.clip(h @ self._w_std, *LOG_STD_RANGE)))
        noise = rng.standard_normal(std.shape, dtype=np.float32)
        actions: NDArray[np.float32] = np.tanh(h @ self._w_mean) + std * noise
        return actions

    def greedy(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean."""
        mean: NDArray[np.float32] = np.tanh(self._network(observations) @ self._w_mean)
        return mean
