"""A lone attack: as long as an honest gradient, and at a right angle to it.

fedpg train --byzantine 3 --attack orthogonal:Orthogonal --set length=2
"""

from __future__ import annotations

import numpy as np
from fedpg_client.attacks import Attack, Context, checked_number, to_finite_float32
from fedpg_common.learning.parameters import Vector


class Orthogonal(Attack):
    """Submits a random direction at a right angle to its gradient."""

    def __init__(self, length: float = 1.0) -> None:
        """`length` is in lengths of the agent's own gradient."""
        self._length = checked_number("length", length, 0.0, 1e6)

    def tamper_gradient(self, gradient: Vector, context: Context) -> Vector:
        """The part of a random vector that is orthogonal to the gradient (d,), `length` times as long as it."""
        own = gradient.astype(np.float64)
        norm = np.linalg.norm(own)
        if norm == 0.0:
            return gradient
        direction = context.rng.standard_normal(len(own))
        direction -= (direction @ own) / norm**2 * own
        return to_finite_float32(self._length * norm * direction / np.linalg.norm(direction))
