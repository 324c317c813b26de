"""Estimates that build on the round before: what the server hands out for them, and their arithmetic.

docs/algorithm.md, "Res-NHARPG" and "ByzPG".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.gradient import Estimate, estimate
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy
from fedpg_common.learning.trajectories import Trajectories

PROBE = 0.01
"""How far from a point θ̂ the two gradients lie whose difference is the Hessian's product with a direction.

Half-way, on a logarithmic scale, between where the third derivative and where float32's rounding spoils the result.
"""


class Kind(StrEnum):
    """How an estimate builds on the round before."""

    MOMENTUM = "momentum"
    """Res-NHARPG: η g + (1 − η) v, which the server adds to (1 − η) times the agent's momentum."""
    DIFFERENCE = "difference"
    """ByzPG: the last estimate, and the difference of the gradients at the two rounds' parameters."""


@dataclass(frozen=True, eq=False)
class Recursion:
    """What an agent needs beside θ_0. Raises ValueError for parts that do not fit its kind."""

    kind: Kind
    previous: Vector
    """θ_0 of the round that the estimate builds on, shape (d,)."""
    estimate: Vector | None = None
    """With DIFFERENCE: what that round's submissions were aggregated to, shape (d,)."""
    weight: float = 0.0
    """With MOMENTUM: η, above 0 and at most 1."""

    def __post_init__(self) -> None:
        """See the class."""
        if self.kind is Kind.MOMENTUM and not (self.estimate is None and 0.0 < self.weight <= 1.0):
            raise ValueError(f"momentum needs a weight above 0 and at most 1, not {self.weight}, and no estimate")
        if self.kind is Kind.DIFFERENCE and (self.estimate is None or self.weight != 0.0):
            raise ValueError("a difference needs the estimate that it is added to, and no weight")


def between(previous: Vector, current: Vector, q: float) -> Vector:
    """The point q · current + (1 − q) · previous, both (d,)."""
    here, there = current.astype(np.float64), previous.astype(np.float64)
    return (there + q * (here - there)).astype(np.float32)


def hessian_product(
    policy: Policy, theta: Vector, direction: Vector, batch: Trajectories, advantages: NDArray[np.float32]
) -> Vector:
    """An estimate of ∇²L(θ) u for a direction u (d,), of trajectories that π_θ has sampled: shape (d,).

    v = Σ_i ⟨∇ log p(τ_i), u⟩ ∇Φ_i(θ) + ∇²Φ(θ) u, where L = Σ_i Φ_i over the trajectories: their distribution depends on
    θ, too. Derivatives along u are central differences over a distance of `PROBE` on either side, which the compiled
    kernels compute with the same bits everywhere. Zeros where u is zero, or not finite where float32 cannot hold v.
    """
    length = math.sqrt(np.square(direction, dtype=np.float64).sum())
    if length == 0.0:
        return np.zeros_like(theta)
    step = direction.astype(np.float64) * (PROBE / length)
    ahead, behind = ((theta.astype(np.float64) + sign * step).astype(np.float32) for sign in (1.0, -1.0))
    with np.errstate(over="ignore", invalid="ignore"):  # whoever asks looks at what comes of it
        plus, minus = (estimate(policy, point, batch, advantages) for point in (ahead, behind))
        slopes = plus.log_probs.astype(np.float64) - minus.log_probs.astype(np.float64)
        of_trajectories = np.bincount(batch.episodes, slopes, batch.count)
        weighted = (of_trajectories[batch.episodes] * advantages).astype(np.float32)
        by_sampling = estimate(policy, theta, batch, weighted).gradient.astype(np.float64)
        by_parameters = plus.gradient.astype(np.float64) - minus.gradient.astype(np.float64)
        product: Vector = ((by_sampling + by_parameters) * (length / (2.0 * PROBE))).astype(np.float32)
    return product


def momentum_part(gradient: Vector, product: Vector, weight: float) -> Vector:
    """η g + (1 − η) v, shape (d,); η g alone where v is not finite."""
    added = weight * gradient.astype(np.float64)
    if np.isfinite(product).all():
        added = added + (1.0 - weight) * product.astype(np.float64)
    with np.errstate(over="ignore"):
        return added.astype(np.float32)


def difference(
    policy: Policy, batch: Trajectories, advantages: NDArray[np.float32], current: Estimate, recursion: Recursion
) -> Vector:
    """The last estimate + ∇L(θ_0) − ∇L_ω(θ_previous), shape (d,): `current` is ∇L(θ_0) of the same batch.

    ∇L(θ_0) alone where the two policies are so different that the weights ω overflow.
    """
    assert recursion.estimate is not None
    with np.errstate(over="ignore", invalid="ignore"):
        before = estimate(policy, recursion.previous, batch, advantages, reference_log_probs=current.log_probs)
        change = current.gradient.astype(np.float64) - before.gradient.astype(np.float64)
        result: Vector = (recursion.estimate.astype(np.float64) + change).astype(np.float32)
    return result if np.isfinite(result).all() else current.gradient
