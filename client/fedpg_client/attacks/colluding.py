"""The attack made against FedPG-BR: attackers agree on one vector that hides within the spread of honest ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from fedpg_common.learning.parameters import Vector

from fedpg_client.attacks.base import Attack, Context, Knowledge, checked_number, to_finite_float32
from fedpg_client.attacks.gradients import STRENGTH_MAX

DEVIATION = 3.0


class FedPGAttack(Attack):
    """Submits what the attackers have agreed on (Fan et al. 2021, the FedPG attack; docs/algorithm.md, "Attacks")."""

    knowledge: ClassVar[Knowledge] = Knowledge.COLLUDERS
    unanimous: ClassVar[bool] = True

    def __init__(self, deviation: float = DEVIATION) -> None:
        """`deviation` is how far from the mean it goes, in half diameters of the pooled gradients; 0 or more."""
        self._deviation = checked_number("deviation", deviation, 0.0, STRENGTH_MAX)

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """The same vector for every attacker that pooled the same gradients."""
        return agreed_vector(list(pooled.values()), context.common, self._deviation)


def agreed_vector(gradients: Sequence[Vector], rng: np.random.Generator, deviation: float = DEVIATION) -> Vector:
    """M + deviation·σ̄·u of at least one gradient (d,): m their mean, 2σ̄ their largest distance, u a random unit vector.

    A lone attacker has σ̄ = 0 and submits its own gradient.
    """
    pooled = np.stack(gradients).astype(np.float64)
    diameter = max(float(np.sqrt(np.square(pooled - row).sum(axis=1)).max()) for row in pooled)
    direction = rng.standard_normal(pooled.shape[1])
    direction /= np.sqrt(np.square(direction).sum())
    return to_finite_float32(pooled.mean(axis=0) + deviation * (diameter / 2.0) * direction)
