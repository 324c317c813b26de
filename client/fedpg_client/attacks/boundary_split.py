"""Boundary Split: pushes the second-best action where the policy hardly prefers the best, within the filter's radius.

Source: the code and draft published in 2026 with the fork Yodeesy/Byzantine-Federated-RL, where it is made against an
ensemble's majority vote. It needs neither accomplices nor anybody else's gradient.
"""

from __future__ import annotations

import logging
import math

import numpy as np
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.policies import CategoricalPolicy
from fedpg_common.learning.trajectories import Trajectories
from numpy.typing import NDArray

from fedpg_client.attacks.base import Attack, Context, checked_number, to_finite_float32
from fedpg_client.attacks.scene import length

log = logging.getLogger(__name__)


class BoundarySplit(Attack):
    """Adds the gradient that makes the second-best action likelier in its most undecided states, to a stated length.

    With continuous actions there is no second-best one: it is honest, and says so in its log.
    """

    def __init__(self, share: float = 0.1, radius: float = 0.9) -> None:
        """`share` of the sampled states are taken; `radius` is how far to go, in radii of the filter's first rule."""
        self._share = checked_number("share", share, 0.0, 1.0)
        self._radius = checked_number("radius", radius, 0.0, 1e6)
        self._observations: NDArray[np.float32] | None = None
        self._has_warned = False

    def tamper_trajectories(self, trajectories: Trajectories, context: Context) -> Trajectories:
        """As they are; their states are looked at when the gradient is there."""
        self._observations = trajectories.observations
        return trajectories

    def tamper_gradient(self, gradient: Vector, context: Context) -> Vector:
        """Gradient + τ · s/‖s‖, shape (d,): s the gradient of −mean log π(second-best), τ = `radius` · 2σ√(V/B_t)."""
        observations, self._observations = self._observations, None
        if observations is None:
            return gradient
        if not isinstance(context.policy, CategoricalPolicy):
            if not self._has_warned:
                log.warning("agent %d: boundary-split needs discrete actions: it is honest", context.agent)
            self._has_warned = True
            return gradient
        gaps, second = second_best(context.policy, context.theta, observations)
        count = max(1, math.floor(self._share * len(gaps)))
        undecided = np.sort(np.argsort(gaps, kind="stable")[:count])
        ones = np.ones(count, np.float32)
        score = context.policy.score(context.theta, observations[undecided], second[undecided], ones, -1.0 / count)
        split = score.gradient.astype(np.float64)
        size = length(split)
        if size == 0.0:
            return gradient
        return to_finite_float32(gradient.astype(np.float64) + self._radius * first_radius(context) / size * split)


def second_best(
    policy: CategoricalPolicy, theta: Vector, observations: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each observation (n, D): how much likelier the best action is than the second-best, (n,), and that one, (n,).

    Of equally likely actions, the one with the lower number comes first.
    """
    count = int(policy.action_space.n)  # type: ignore[union-attr]  # a categorical policy's is discrete
    ones = np.ones(len(observations), np.float32)
    every = [np.full(len(observations), action, np.int64) for action in range(count)]
    chances = np.exp(
        np.stack([policy.score(theta, observations, action, ones, 1.0).log_probs for action in every], axis=1),
        dtype=np.float64,
    )
    order = np.argsort(-chances, axis=1, kind="stable")[:, :2]
    best, second = np.take_along_axis(chances, order, axis=1).T
    return best - second, order[:, 1].astype(np.int64)


def first_radius(context: Context) -> float:
    """𝔗 = 2σ√(V/B_t), V = 2 ln(2K/δ): the radius of FedPG-Aggregate's first rule, which is public."""
    V = 2.0 * math.log(2.0 * context.agents / context.task.delta)
    return 2.0 * context.task.sigma * math.sqrt(V / context.batch_size)
