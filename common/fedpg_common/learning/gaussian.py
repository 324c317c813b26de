"""What a Gaussian policy spends its time in, in NumPy: acting, likelihoods and their gradient."""

from __future__ import annotations

import math

import numpy as np

from fedpg_common.learning.networks import Array, Network
from fedpg_common.learning.parameters import ParameterSpec, Vector

LOG_PROB_FLOOR = -1e5
"""Least log-probability of one dimension of a Gaussian action."""
LOG_STD_RANGE = (-20.0, -2.0)
LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class GaussianNetwork:
    """Trunk and heads."""

    def __init__(self, spec: ParameterSpec, theta: Vector, activation: str) -> None:
        """The policy's network at θ (d,), which is copied."""
        views = spec.views(theta)
        self.trunk = Network(spec, theta, activation)
        self.w_mean = views["mean.weight"].copy()
        self.w_std = views["std.weight"].copy()

    def mean(self, h: Array) -> Array:
        """μ (n, A) from the trunk's output h."""
        mean: Array = h.dot(self.w_mean.T)
        return np.tanh(mean, out=mean)

    def unclamped_log_std(self, h: Array) -> Array:
        """W_σ h (n, A)."""
        log_std: Array = h.dot(self.w_std.T)
        return log_std


class GaussianActor:
    """A Gaussian policy at fixed parameters."""

    def __init__(self, network: GaussianNetwork) -> None:
        """The policy of that network."""
        self._network = network

    def sample(self, observations: Array, rng: np.random.Generator) -> Array:
        """Mean plus standard deviation times a standard normal draw."""
        h = self._network.trunk.forward(observations)[-1]
        std = self._network.unclamped_log_std(h)
        np.clip(std, *LOG_STD_RANGE, out=std)
        np.exp(std, out=std)
        np.tanh(std, out=std)
        actions = rng.standard_normal(std.shape, np.float32)
        actions *= std
        actions += self._network.mean(h)
        return actions

    def greedy(self, observations: Array) -> Array:
        """The mean."""
        return self._network.mean(self._network.trunk.forward(observations)[-1])


class GaussianLikelihood:
    """log π_θ(a|s) of some steps, and what of the pass through the network its gradient needs."""

    def __init__(self, spec: ParameterSpec, network: GaussianNetwork, observations: Array, actions: Array) -> None:
        """Observations are (n, D), actions (n, A), both float32."""
        self._spec, self._network = spec, network
        self._values = network.trunk.forward(observations)
        h = self._values[-1]
        self._mean = network.mean(h)
        log_std = network.unclamped_log_std(h)
        low, high = LOG_STD_RANGE
        self._inside = (log_std >= low) & (log_std <= high)
        self._exp = np.exp(np.clip(log_std, low, high))
        self._std = np.tanh(self._exp)
        self._z = (actions - self._mean) / self._std
        log_probs = -0.5 * (self._z * self._z) - np.log(self._std) - np.float32(LOG_SQRT_2PI)
        self._above_floor = log_probs >= LOG_PROB_FLOOR
        self.log_probs: Array = np.maximum(log_probs, LOG_PROB_FLOOR).sum(axis=1)
        """Shape (n,)."""

    def gradient(self, coefficients: Array) -> Vector:
        """Backpropagate ∂ log π/∂μ = z/σ and ∂ log π/∂σ = (z² − 1)/σ, z = (a − μ)/σ; a floored dimension is flat."""
        z, std, mean = self._z, self._std, self._mean
        scale = np.where(self._above_floor, coefficients[:, None], np.float32(0.0))
        scale /= std
        slope_mean = z * scale
        slope_mean *= 1.0 - mean * mean
        slope_std = z * z
        slope_std -= 1.0
        slope_std *= scale
        slope_std *= 1.0 - std * std
        slope_std *= self._exp
        slope_std *= self._inside

        h = self._values[-1]
        slope = slope_mean.dot(self._network.w_mean)
        slope += slope_std.dot(self._network.w_std)
        gradient = np.empty(self._spec.size, np.float32)
        views = self._spec.views(gradient)
        np.dot(slope_mean.T, h, out=views["mean.weight"])
        np.dot(slope_std.T, h, out=views["std.weight"])
        self._network.trunk.backward(self._values, slope, views)
        return gradient
