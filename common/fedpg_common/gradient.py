"""The policy gradient estimate of a batch of trajectories (GPOMDP with whitened reward-to-go, design.md section 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedpg_common.parameters import Vector
from fedpg_common.policies import Policy
from fedpg_common.rollouts import Trajectories


def advantages(trajectories: Trajectories, gamma: float) -> NDArray[np.float32]:
    """A_{i,t}: discounted reward-to-go, whitened per trajectory with the unbiased standard deviation, shape (n,).

    A trajectory of one step, or whose reward-to-go is constant up to rounding, has A = 0: never NaN.
    Computed in float64.
    """
    episodes, count = trajectories.episodes, trajectories.count
    lengths = trajectories.lengths()
    # Steps are time-major and ordered by episode within a step, so a new step begins where the episode does not grow.
    times = np.zeros(trajectories.steps, dtype=np.int64)
    np.cumsum(episodes[1:] <= episodes[:-1], out=times[1:])
    to_go = np.zeros((int(lengths.max()), count))
    to_go[times, episodes] = trajectories.rewards
    for t in range(len(to_go) - 2, -1, -1):
        to_go[t] += gamma * to_go[t + 1]

    sizes = np.abs(to_go).max(axis=0)
    to_go -= to_go.sum(axis=0) / lengths
    deviations = to_go[times, episodes]
    squares = np.bincount(episodes, weights=deviations * deviations, minlength=count)
    std = np.sqrt(squares / np.maximum(lengths - 1, 1))
    # A recursion of T steps cannot be more exact than T roundings of its largest value.
    constant = std <= 8.0 * lengths * np.finfo(np.float64).eps * sizes
    scale = np.divide(1.0, std, out=np.zeros(count), where=~constant)
    return (deviations * scale[episodes]).astype(np.float32)


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
    (L_ω of design.md); without, ω = 1. Where an action is so unlikely under one policy that ω overflows, the estimate
    is not finite: look at the weights first.
    """
    # Everything is copied into torch's own memory, whose alignment, and so the bits of the result, is always the same.
    parameters = torch.tensor(theta, dtype=torch.float32, requires_grad=True)
    log_probs = policy.log_prob(parameters, torch.tensor(trajectories.observations), torch.tensor(trajectories.actions))
    terms = torch.tensor(advantages, dtype=torch.float32)
    if reference_log_probs is None:
        weights = torch.ones_like(terms)
    else:
        weights = torch.exp(log_probs.detach() - torch.tensor(reference_log_probs))
        terms *= weights
    loss = -(terms * log_probs).mean()
    (gradient,) = torch.autograd.grad(loss, parameters)
    return Estimate(
        gradient=gradient.numpy(),
        loss=loss.item(),
        log_probs=log_probs.detach().numpy(),
        weights=weights.numpy(),
    )
