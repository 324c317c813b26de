"""Attacks on the gradient."""

from __future__ import annotations

import numpy as np
from fedpg_common.parameters import ParameterSpec, Vector

from fedpg_client.attacks.behaviour import Behaviour, to_finite_float32

NOISE_SCALE = 3.0
FLIPPING_FACTOR = -2.5


class RandomNoise(Behaviour):
    """Adds noise as wide as three times the gradient's range, tensor by tensor."""

    def tamper_gradient(self, gradient: Vector, spec: ParameterSpec, rng: np.random.Generator) -> Vector:
        """Gradient + U(−1, 1) · 3 · (max − min), with the maximum and minimum of each tensor of the gradient."""
        noisy = gradient.astype(np.float64)
        for tensor, place in spec.slices():
            spread = noisy[place].max() - noisy[place].min()
            noisy[place] += rng.uniform(-1.0, 1.0, tensor.size) * NOISE_SCALE * spread
        return to_finite_float32(noisy)


class SignFlipping(Behaviour):
    """Turns the gradient round and enlarges it."""

    def tamper_gradient(self, gradient: Vector, spec: ParameterSpec, rng: np.random.Generator) -> Vector:
        """−2.5 × gradient."""
        return to_finite_float32(FLIPPING_FACTOR * gradient.astype(np.float64))


class ZeroGradient(Behaviour):
    """Has nothing to say."""

    def tamper_gradient(self, gradient: Vector, spec: ParameterSpec, rng: np.random.Generator) -> Vector:
        """Zeros."""
        return np.zeros_like(gradient)
