"""Attacks on the actions: the gradient is that of the actions taken."""

from __future__ import annotations

from typing import Any

import numpy as np
from fedpg_common.learning.policies import Actor
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from fedpg_client.attacks.base import Attack, Choose, Context


class RandomAction(Attack):
    """Ignores the policy and acts at random."""

    def choose(self, actor: Actor, action_space: Discrete[Any] | Box, context: Context) -> Choose:
        """Uniform over a Discrete space, or within a Box's bounds.

        There is no uniform distribution over what has no bounds: a dimension without both of them gets a standard
        normal draw, moved to the bound that it has if it lies beyond.
        """
        rng = context.actions
        if isinstance(action_space, Discrete):
            count = int(action_space.n)
            return lambda observations: rng.integers(count, size=len(observations), dtype=np.int64)
        low, high = (bound.reshape(-1).astype(np.float64) for bound in (action_space.low, action_space.high))
        is_bounded = np.isfinite(low) & np.isfinite(high)

        def choose(observations: NDArray[np.float32]) -> NDArray[np.float32]:
            shape = (len(observations), len(low))
            actions = np.clip(rng.standard_normal(shape), low, high)
            actions[:, is_bounded] = rng.uniform(low[is_bounded], high[is_bounded], (shape[0], int(is_bounded.sum())))
            return actions.astype(np.float32)

        return choose


class ConstantAction(Attack):
    """Ignores the policy and always takes the zero action, as the code published with the paper does."""

    def choose(self, actor: Actor, action_space: Discrete[Any] | Box, context: Context) -> Choose:
        """A Discrete space's first action; a Box's zero vector, whatever its bounds."""
        if isinstance(action_space, Discrete):
            return lambda observations: np.zeros(len(observations), dtype=np.int64)
        size = int(np.prod(action_space.shape))
        return lambda observations: np.zeros((len(observations), size), dtype=np.float32)
