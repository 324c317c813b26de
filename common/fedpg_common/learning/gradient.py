"""The policy gradient estimate of a batch of trajectories: GPOMDP with whitened reward-to-go.

Its equations are in docs/algorithm.md, "Gradient estimate".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.kernels import kernels
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import Policy
from fedpg_common.learning.trajectories import Trajectories


def advantages(trajectories: Trajectories, gamma: float) -> NDArray[np.float32]:
    """A_{i,t}: discounted reward-to-go, whitened per trajectory with the unbiased standard deviation, shape (n,).

    A trajectory of one step, or whose reward-to-go is constant up to rounding, has A = 0. Computed in float64.
    """
    return kernels().advantages(trajectories.rewards, trajectories.episodes, trajectories.count, gamma)


@dataclass(frozen=True)
class Estimate:
    """A gradient estimate and what it was made of."""

    gradient: Vector
    """∇L(θ), shape (d,)."""
    loss: float
    """L(θ)."""
    log_probs: NDArray[np.float32]
    """log π_θ(a|s) of each step, shape (n,)."""
    weights: NDArray[np.float32]
    """ω of each step, shape (n,): 1 without a reference."""


def estimate(
    policy: Policy,
    theta: Vector,
    trajectories: Trajectories,
    advantages: NDArray[np.float32],
    reference_log_probs: NDArray[np.float32] | None = None,
) -> Estimate:
    """∇L(θ) with L(θ) = −(1/n) Σ ω A log π_θ(a|s) over the n steps of all trajectories.

    With `reference_log_probs` (n,), those of the policy that sampled, ω = exp(log π_θ − reference), held constant
    (L_ω of docs/algorithm.md, "Gradient estimate"); without, ω = 1. Where an action is so unlikely under the sampling
    policy that ω overflows, the estimate is not finite: look at the weights first.

    The same numbers give the same bits wherever they lie in memory; for a categorical policy on every processor, for a
    Gaussian one on one kind of processor, as long as linear algebra uses one thread
    (`fedpg_common.bootstrap.use_one_thread`).
    """
    score = policy.score(
        theta,
        trajectories.observations,
        trajectories.actions,
        advantages,
        -1.0 / trajectories.steps,
        reference_log_probs,
    )
    loss = -float(np.add.reduce(score.ratios * advantages * score.log_probs, dtype=np.float64)) / trajectories.steps
    return Estimate(gradient=score.gradient, loss=loss, log_probs=score.log_probs, weights=score.ratios)
