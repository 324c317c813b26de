"""Attacks by the moments of gradients: a little beside their mean, or against it; and both with a line search.

Sources: Baruch, Baruch, Goldberg, "A Little Is Enough", NeurIPS 2019 (ALIE); Xie, Koyejo, Gupta, "Fall of Empires:
Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI 2019 (IPM). The optimised forms choose the factor by
running the server's rule, as the library ByzFL does (EPFL, 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import ClassVar

import numpy as np
from fedpg_common.learning.parameters import Vector

from fedpg_client.attacks.base import Attack, Context, Knowledge, checked_number, to_finite_float32
from fedpg_client.attacks.scene import Array, Scene, SceneAttack
from fedpg_client.attacks.searches import along, displacement, harm, worst

FACTOR_MAX = 1e6
SHARE_MIN, SHARE_MAX = 0.01, 0.99
"""Between these quantiles of honest agents ALIE hides; beyond, the normal distribution's tails promise too much."""
TRIES = 12


class ALIE(Attack):
    """Submits mean − z · standard deviation of the attackers' own gradients, coordinate by coordinate."""

    knowledge: ClassVar[Knowledge] = Knowledge.COLLUDERS
    unanimous: ClassVar[bool] = True

    def __init__(self, z: float | None = None) -> None:
        """`z` is how many deviations; by default the paper's, from K and the number of attackers: see `largest_z`."""
        self._z = None if z is None else checked_number("z", z, -FACTOR_MAX, FACTOR_MAX)

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """The attackers' vector (d,). A lone one has no deviations to hide in, and is honest."""
        if len(pooled) < 2:
            return pooled[context.agent]
        gradients = np.stack(list(pooled.values())).astype(np.float64)
        z = largest_z(context.agents, len(context.attackers)) if self._z is None else self._z
        return to_finite_float32(gradients.mean(axis=0) - z * gradients.std(axis=0, ddof=1))


def largest_z(agents: int, attackers: int) -> float:
    """The z = Φ⁻¹((n − f − s) / (n − f)), s = ⌊n/2 + 1⌋ − f: so far out, s honest agents still lie farther out.

    With these s, the attackers are a majority. Never below 0.
    """
    honest = agents - attackers
    if honest <= 0:
        return 0.0
    supporters = agents // 2 + 1 - attackers
    share = min(max((honest - supporters) / honest, SHARE_MIN), SHARE_MAX)
    return max(0.0, NormalDist().inv_cdf(share))


class IPM(SceneAttack):
    """Submits −factor · the honest mean: a small one turns the rule's inner product with the true gradient."""

    def __init__(self, factor: float = 0.1) -> None:
        """`factor` is ε of the paper, above 0."""
        self._factor = checked_number("factor", factor, 0.0, FACTOR_MAX)

    def craft(self, scene: Scene) -> Array:
        """−factor · m, shape (d,)."""
        return -self._factor * scene.mean


class OptimisedALIE(SceneAttack):
    """ALIE on honest gradients, with the z, of either sign, that moves μ farthest from the honest mean."""

    tries_rule: ClassVar[bool] = True

    def __init__(self, largest: float = 10.0) -> None:
        """`largest` bounds |z|."""
        self._largest = checked_number("largest", largest, 1e-3, FACTOR_MAX)

    def craft(self, scene: Scene) -> Array:
        """Mean + z · deviations, shape (d,)."""
        value = harm(scene, displacement)
        sizes = np.geomspace(self._largest / 100.0, self._largest, TRIES).tolist()
        return worst(scene, (along(value, scene.mean, sign * scene.deviations, [0.0, *sizes]) for sign in (-1.0, 1.0)))


class OptimisedIPM(SceneAttack):
    """IPM with the factor that moves μ farthest from the honest mean."""

    tries_rule: ClassVar[bool] = True

    def __init__(self, largest: float = 30.0) -> None:
        """`largest` bounds the factor."""
        self._largest = checked_number("largest", largest, 1e-3, FACTOR_MAX)

    def craft(self, scene: Scene) -> Array:
        """−factor · m, shape (d,)."""
        sizes = np.geomspace(self._largest / 300.0, self._largest, TRIES).tolist()
        return worst(scene, [along(harm(scene, displacement), np.zeros_like(scene.mean), -scene.mean, [0.0, *sizes])])
