"""The Trim attack: each coordinate just beyond the honest ones, on the side against the mean.

Source: Fang, Cao, Jia, Gong, "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security
2020. It is made against the coordinate-wise trimmed mean and median.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from fedpg_common.learning.parameters import Vector

from fedpg_client.attacks.base import Attack, Context, Knowledge, checked_number, to_finite_float32
from fedpg_client.attacks.scene import Array, scene_of

STRETCH_MAX = 1e6


class Trim(Attack):
    """Draws each coordinate between the honest extreme that is against the honest mean's sign, and b times as far."""

    knowledge: ClassVar[Knowledge] = Knowledge.OMNISCIENT

    def __init__(self, b: float = 2.0) -> None:
        """`b` stretches the interval; above 1."""
        self._b = checked_number("b", b, 1.0, STRETCH_MAX)

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """Uniform in the intervals of `beyond`, each attacker its own draws, shape (d,)."""
        near, far = beyond(scene_of(pooled, context).honest, self._b)
        return to_finite_float32(near + context.rng.random(len(near)) * (far - near))


def beyond(honest: Array, b: float) -> tuple[Array, Array]:
    """From where to where each coordinate is drawn, given honest gradients (n, d).

    Against a mean above 0: from the minimum down to min/b, or b·min if that is below 0; against one below 0: from the
    maximum up to b·max, or max/b if that is below 0. Where the mean is 0, so is the coordinate.
    """
    means = honest.mean(axis=0)
    low, high = honest.min(axis=0), honest.max(axis=0)
    near = np.where(means > 0, low, high)
    # Whichever of the two moves away from zero or towards it, so that it moves away from the honest gradients.
    is_outward = np.where(means > 0, low < 0, high > 0)
    far = np.where(is_outward, near * b, near / b)
    return np.where(means == 0, 0.0, near), np.where(means == 0, 0.0, far)


class PartialTrim(Attack):
    """Trim by who knows the attackers' gradients alone: 3 to 4 of their deviations beyond their mean."""

    knowledge: ClassVar[Knowledge] = Knowledge.COLLUDERS

    def __init__(self, nearest: float = 3.0, farthest: float = 4.0) -> None:
        """Both in standard deviations, at least 0; `farthest` is not below `nearest`."""
        self._nearest = checked_number("nearest", nearest, 0.0, STRETCH_MAX)
        self._farthest = checked_number("farthest", farthest, 0.0, STRETCH_MAX)
        if self._farthest < self._nearest:
            raise ValueError(f"farthest must not be below nearest: {farthest} is below {nearest}")

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """Mean − sign(mean) · U(nearest, farthest) · deviations of the attackers' gradients, shape (d,)."""
        gradients = np.stack(list(pooled.values())).astype(np.float64)
        means = gradients.mean(axis=0)
        draws = self._nearest + context.rng.random(len(means)) * (self._farthest - self._nearest)
        return to_finite_float32(means - np.sign(means) * draws * gradients.std(axis=0))
