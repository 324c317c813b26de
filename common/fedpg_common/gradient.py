"""The policy gradient estimate of a batch of trajectories: GPOMDP with whitened reward-to-go.

Its equations are in docs/algorithm.md, "Gradient estimate".
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpg_common.parameters import Vector
from fedpg_common.policies import Policy
from fedpg_common.rollouts import Trajectories

ROWS_AT_ONCE = 4096
"""Steps that pass through the policy together: enough to be fast, few enough to stay in the processor's cache."""


def advantages(trajectories: Trajectories, gamma: float) -> NDArray[np.float32]:
    """A_{i,t}: discounted reward-to-go, whitened per trajectory with the unbiased standard deviation, shape (n,).

    A trajectory of one step, or whose reward-to-go is constant up to rounding, has A = 0. Computed in float64.
    """
    episodes, count = trajectories.episodes, trajectories.count
    lengths = trajectories.lengths()
    to_go = np.empty(trajectories.steps)
    to_go[:] = _rewards_to_go(trajectories.rewards.tolist(), episodes.tolist(), count, gamma)
    means = np.bincount(episodes, to_go, count) / lengths
    deviations = to_go - means[episodes]
    squares = np.bincount(episodes, deviations * deviations, count)
    std = np.sqrt(squares / np.maximum(lengths - 1, 1))
    # A recursion of T steps is exact to about T roundings of the values that it goes through.
    rounding = 8.0 * lengths * sys.float_info.epsilon * np.abs(means)
    scale = np.divide(1.0, std, out=np.zeros(count), where=std > rounding)
    return (deviations * scale[episodes]).astype(np.float32)


def _rewards_to_go(rewards: list[float], episodes: list[int], count: int, gamma: float) -> list[float]:
    """R_t = r_t + γ R_{t+1} of every step: plain floats, since a numpy call for each time step is no faster."""
    to_go = [0.0] * count
    result = [0.0] * len(rewards)
    for step in range(len(rewards) - 1, -1, -1):
        episode = episodes[step]
        to_go[episode] = result[step] = rewards[step] + gamma * to_go[episode]
    return result


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

    The same numbers give the same bits on one kind of CPU, wherever they lie in memory, as long as linear algebra uses
    one thread (`fedpg_common.process.use_one_thread`): with more, it may sum in another order.
    """
    steps = trajectories.steps
    gradient = np.zeros(policy.spec.size, np.float32)
    log_probs = np.empty(steps, np.float32)
    weights = np.ones(steps, np.float32)
    for start in range(0, steps, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        likelihood = policy.likelihood(theta, trajectories.observations[rows], trajectories.actions[rows])
        log_probs[rows] = likelihood.log_probs
        if reference_log_probs is not None:
            with np.errstate(over="ignore"):
                weights[rows] = np.exp(likelihood.log_probs - reference_log_probs[rows])
        gradient += likelihood.gradient(advantages[rows] * weights[rows] * np.float32(-1.0 / steps))
    loss = -float(np.add.reduce(weights * advantages * log_probs, dtype=np.float64)) / steps
    return Estimate(gradient=gradient, loss=loss, log_probs=log_probs, weights=weights)
