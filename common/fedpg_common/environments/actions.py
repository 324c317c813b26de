"""From the policy's actions to an environment's: counted from the space's start, scaled to its bounds.

A policy's action lies around −1 to 1 in each dimension. So does an action of a Box with these bounds, to which nothing
is done. A dimension with other finite bounds is scaled: −1 means the lower bound, 1 the upper one, 0 the middle; what
is beyond a bound is moved to it. A dimension without two finite bounds gets the policy's number as it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from numpy.typing import NDArray

from fedpg_common.errors import UsageError

BOUND_MAX = float(np.finfo(np.float32).max)
"""A bound so large, or larger, is as good as none."""


class ActionScale:
    """Translates the actions of one space."""

    def __init__(self, space: Space[Any]) -> None:
        """Raises UsageError for a space that no policy fits."""
        self.space = _supported(space)
        self.policy_space: Discrete[Any] | Box = self.space
        """The space as a policy sees it: the same one, or a Box with −1 and 1 in the dimensions that are scaled."""
        self._is_scaled: NDArray[np.bool_] | None = None
        if isinstance(self.space, Box):
            self._measure(self.space)

    def _measure(self, space: Box) -> None:
        low, high = (bound.reshape(-1).astype(np.float64) for bound in (space.low, space.high))
        empty = ~(low < high)
        if empty.any():
            d = int(empty.argmax())
            raise UsageError(
                f"dimension {d} of the actions has the bounds {low[d]:g} and {high[d]:g}: there is nothing to choose"
            )
        bounded = (np.abs(low) < BOUND_MAX) & (np.abs(high) < BOUND_MAX)
        scaled = bounded & ~((low == -1.0) & (high == 1.0))
        if not scaled.any():
            return
        self._is_scaled = scaled
        self._low, self._high = low[scaled], high[scaled]
        ones = np.where(scaled, 1.0, np.inf)
        self.policy_space = Box(
            np.where(scaled, -ones, low).reshape(space.shape).astype(space.dtype),
            np.where(scaled, ones, high).reshape(space.shape).astype(space.dtype),
            dtype=space.dtype.type,
        )

    def to_environment(self, actions: NDArray[Any]) -> NDArray[Any]:
        """The environment's actions (n, …) for the policy's (n,) or (n, A): an array of its own, of the space's dtype.

        The environment may write into it.
        """
        space = self.space
        if isinstance(space, Discrete):
            moves: NDArray[Any] = actions + space.start
            return moves
        if self._is_scaled is None:
            return actions.astype(space.dtype).reshape(len(actions), *space.shape)
        wide = actions.reshape(len(actions), -1).astype(np.float64)
        # In this form −1 and 1 give the bounds exactly.
        share = (wide[:, self._is_scaled] + 1.0) / 2.0
        wide[:, self._is_scaled] = np.clip(self._low * (1.0 - share) + self._high * share, self._low, self._high)
        return wide.astype(space.dtype).reshape(len(actions), *space.shape)


def _supported(space: Space[Any]) -> Discrete[Any] | Box:
    if isinstance(space, Discrete):
        return space
    if not (isinstance(space, Box) and space.dtype.kind == "f"):
        raise UsageError(f"actions must be Discrete or a Box of real numbers, not {space}")
    if math.prod(space.shape) < 1:
        raise UsageError(f"actions must be a Box of one number at least, not {space}")
    return space
