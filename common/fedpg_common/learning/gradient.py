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


def advantages(trajectories: Trajectories, gamma: float, baseline: str = "") -> NDArray[np.float32]:
    """A_{i,t}: discounted reward-to-go, whitened per trajectory with the unbiased standard deviation, shape (n,).

    A trajectory of one step, or whose reward-to-go is constant up to rounding, has A = 0. Computed in float64. With the
    baseline "time" (see `fedpg_common.tasks.BASELINES`), less the others' mean at the same step.
    """
    whitened = kernels().advantages(trajectories.rewards, trajectories.episodes, trajectories.count, gamma)
    return less_the_others(whitened, trajectories) if baseline == "time" else whitened


def less_the_others(values: NDArray[np.float32], trajectories: Trajectories) -> NDArray[np.float32]:
    """Each step's value (n,) minus the mean of the other trajectories' at the same t, of those that last so long.

    What all have alike, however long they are, becomes exactly 0: a sum of equal float32 numbers is exact in float64.
    """
    episodes, count = trajectories.episodes, trajectories.count
    lengths = np.bincount(episodes, minlength=count)
    order = np.argsort(episodes, kind="stable")
    t = np.empty(len(values), np.int64)
    t[order] = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    sums, others = np.bincount(t, values)[t] - values, np.bincount(t)[t] - 1
    return np.asarray(values - np.divide(sums, others, out=np.zeros(len(values)), where=others > 0), np.float32)


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
    loss = -ordered_sum(score.ratios * advantages * score.log_probs) / trajectories.steps
    return Estimate(gradient=score.gradient, loss=loss, log_probs=score.log_probs, weights=score.ratios)


def ordered_sum(values: NDArray[np.float32]) -> float:
    """The sum of some values (n,), in double precision and in their order, as the kernels add."""
    return float(np.add.accumulate(values, dtype=np.float64)[-1])
