"""Attacks that hide among honest gradients by distance: they ask nothing of the server's rule.

Sources: Shejwalkar, Houmansadr, "Manipulating the Byzantine", NDSS 2021 (Min-Max, Min-Sum); Karimireddy, He, Jaggi,
"Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022 (Mimic).
"""

from __future__ import annotations

import math

import numpy as np
from fedpg_common.checks import is_whole, show
from fedpg_common.federation import AGENTS_MAX
from fedpg_common.learning.aggregators import pairwise_distances

from fedpg_client.attacks.scene import Array, Scene, SceneAttack
from fedpg_client.attacks.searches import DIRECTIONS, checked_direction


class MinMax(SceneAttack):
    """Goes as far from the honest mean as leaves nobody farther off than two honest agents are from each other."""

    def __init__(self, direction: str = "mean") -> None:
        """`direction` is mean, sign or std: against the honest mean, its signs, or the deviations."""
        self._direction = checked_direction(direction)

    def craft(self, scene: Scene) -> Array:
        """M + γ p: the largest γ with max_i ‖m + γ p − g_i‖ ≤ max_{i,j} ‖g_i − g_j‖, shape (d,)."""
        p = DIRECTIONS[self._direction](scene)
        return scene.mean + self.reach(scene, p) * p

    def reach(self, scene: Scene, p: Array) -> float:
        """γ in closed form, for a unit vector p (d,): the least root of a quadratic equation for each honest agent."""
        offsets = scene.mean - scene.honest
        bound = float(np.square(honest_distances(scene)).max())
        slopes = offsets @ p
        rooms = np.maximum(bound - np.square(offsets).sum(axis=1), 0.0)
        return max(0.0, float((np.sqrt(np.square(slopes) + rooms) - slopes).min()))


class MinSum(MinMax):
    """Goes as far as keeps its sum of squared distances to honest agents below the largest that one of them has."""

    def reach(self, scene: Scene, p: Array) -> float:
        """The largest γ with Σ_i ‖m + γ p − g_i‖² ≤ max_i Σ_j ‖g_i − g_j‖². Offsets from the mean sum to zero."""
        bound = float(np.square(honest_distances(scene)).sum(axis=1).max())
        own = float(np.square(scene.mean - scene.honest).sum())
        return math.sqrt(max(bound - own, 0.0) / len(scene.honest))


def honest_distances(scene: Scene) -> Array:
    """Distances between the honest gradients, (n, n)."""
    return pairwise_distances(scene.honest.astype(np.float32))


class Mimic(SceneAttack):
    """All attackers submit what one honest agent does: it counts for more than one, and others for less."""

    def __init__(self, agent: int | None = None) -> None:
        """`agent` is whom to copy: it, or if it attacks itself or is not there the next honest one, then the first."""
        if agent is not None and not (is_whole(agent) and 1 <= agent <= AGENTS_MAX):
            raise ValueError(f"agent must be an agent's index, a whole number from 1, not {show(agent)}")
        self._agent = agent

    def craft(self, scene: Scene) -> Array:
        """The agent's gradient (d,); the mean where all attack."""
        others = [row for row in range(len(scene.gradients)) if row not in scene.attackers]
        if not others:
            return scene.mean
        wanted = 0 if self._agent is None else self._agent - 1
        row = next((other for other in others if other >= wanted), others[0])
        return np.asarray(scene.gradients[row], np.float64)
