"""A colluding attack: "A Little Is Enough" (Baruch et al., NeurIPS 2019).

The attackers submit the mean of their gradients, moved by z standard deviations in every coordinate: so little that
enough honest agents lie farther out than they do, which makes them hard to tell from honest ones.

    fedpg train --byzantine 3 --attack alie:ALIE --set z=1.5
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import ClassVar

import numpy as np
from fedpg_client.attacks import Attack, Context, Knowledge, checked_number, to_finite_float32
from fedpg_common.learning.parameters import Vector


class ALIE(Attack):
    """Submits mean − z · standard deviation of the attackers' own gradients, coordinate by coordinate."""

    knowledge: ClassVar[Knowledge] = Knowledge.COLLUDERS
    unanimous: ClassVar[bool] = True

    def __init__(self, z: float | None = None) -> None:
        """`z` is how far to go; by default what the paper derives from K and the number of attackers."""
        self._z = None if z is None else checked_number("z", z, 0.0, 1e6)

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """The attackers' vector (d,). One whose accomplices are missing has no spread to hide in, and is honest."""
        gradients = np.stack(list(pooled.values())).astype(np.float64)
        if len(gradients) < 2:
            return pooled[context.agent]
        z = largest_z(context.agents, len(context.attackers)) if self._z is None else self._z
        return to_finite_float32(gradients.mean(axis=0) - z * gradients.std(axis=0, ddof=1))


def largest_z(agents: int, attackers: int) -> float:
    """How far off attackers may be, in standard deviations, with a majority of all that lies no closer to the mean."""
    honest = agents - attackers
    supporters = agents // 2 + 1 - attackers
    return max(0.0, NormalDist().inv_cdf(min(max((honest - supporters) / honest, 0.01), 0.99))) if honest > 0 else 0.0
