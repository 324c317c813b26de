"""How much of μ is signal: κ = max(0, 1 − z/e), from moving sums of |μ|² and of the noise that is left in it."""

from __future__ import annotations

from fedpg_common.learning.parameters import Vector

from fedpg_server.learning.algorithms.defence.memory import Memory, numbers_in, to_vector

FORGET = 0.8
GAIN = 3.0
NAME = "gate"


def learn_signal(memory: Memory, square: float, noise: float) -> tuple[float, dict[str, Vector]]:
    """κ after a round with |μ|² = `square` and s² Σw²/(Σw)² = `noise`, both finite, and the memory after it."""
    energy, noise_energy = numbers_in(memory, NAME, 2)
    energy = FORGET * energy + square
    noise_energy = FORGET * noise_energy + noise
    kappa = max(0.0, 1.0 - noise_energy / energy) if energy > 0 else 0.0
    return kappa, {NAME: to_vector([energy, noise_energy])}


def rate_factor(kappa: float) -> float:
    """By what the learning rate is multiplied: min(1, 3κ)."""
    return min(1.0, GAIN * kappa)
