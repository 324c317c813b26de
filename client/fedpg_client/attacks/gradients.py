"""Attacks on the gradient."""

from __future__ import annotations

import numpy as np
from fedpg_common.learning.parameters import Vector

from fedpg_client.attacks.base import Attack, Context, checked_number, to_finite_float32

STRENGTH_MAX = 1e30
"""Beyond it lies nothing that a float32 can hold."""


class RandomNoise(Attack):
    """Adds noise as wide as `scale` times the gradient's range, tensor by tensor."""

    def __init__(self, scale: float = 3.0) -> None:
        """`scale` is 0 or more."""
        self._scale = checked_number("scale", scale, 0.0, STRENGTH_MAX)

    def tamper_gradient(self, gradient: Vector, context: Context) -> Vector:
        """Gradient + U(−1, 1) · scale · (max − min), with the maximum and minimum of each tensor of the gradient."""
        noisy = gradient.astype(np.float64)
        for tensor, place in context.tensors.slices():
            spread = noisy[place].max() - noisy[place].min()
            noisy[place] += context.rng.uniform(-1.0, 1.0, tensor.size) * self._scale * spread
        return to_finite_float32(noisy)


class SignFlipping(Attack):
    """Turns the gradient round and enlarges it."""

    def __init__(self, factor: float = -2.5) -> None:
        """`factor` is what the gradient is multiplied by."""
        self._factor = checked_number("factor", factor, -STRENGTH_MAX, STRENGTH_MAX)

    def tamper_gradient(self, gradient: Vector, context: Context) -> Vector:
        """`factor` × gradient."""
        return to_finite_float32(self._factor * gradient.astype(np.float64))


class ZeroGradient(Attack):
    """Has nothing to say."""

    def tamper_gradient(self, gradient: Vector, context: Context) -> Vector:
        """Zeros."""
        return np.zeros_like(gradient)
