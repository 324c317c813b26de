"""What one round of learning hands to the next. Readers of a store need no torch for it."""

from __future__ import annotations

from dataclasses import dataclass

from fedpg_common.parameters import Vector


@dataclass(frozen=True, eq=False)
class LearnerState:
    """All that one round hands to the next."""

    theta: Vector
    """θ, shape (d,)."""
    adam_m: Vector
    """Adam's running mean of the gradient, shape (d,)."""
    adam_v: Vector
    """Adam's running mean of the squared gradient, shape (d,)."""
    adam_steps: int
