"""What an agent may do otherwise than the protocol asks: one hook for each part of its work in a round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fedpg_common.parameters import ParameterSpec, Vector
from fedpg_common.policies import Actor
from fedpg_common.trajectories import Trajectories
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

Choose = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Maps observations (n, D) to one action a row."""


class Behaviour:
    """An honest agent. An attack overrides the hook that it tampers with (design.md section 4).

    A round calls the hooks in the order in which they stand here. The generators are the round's own, so that an
    attack draws the same numbers whenever the round is repeated.
    """

    def choose(self, actor: Actor, action_space: Discrete[Any] | Box, rng: np.random.Generator) -> Choose:
        """How the agent acts."""
        return lambda observations: actor.sample(observations, rng)

    def tamper_trajectories(self, trajectories: Trajectories, rng: np.random.Generator) -> Trajectories:
        """The trajectories of which the gradient is computed."""
        return trajectories

    def tamper_gradient(self, gradient: Vector, spec: ParameterSpec, rng: np.random.Generator) -> Vector:
        """The vector that the agent would submit on its own, shape (d,). `spec` says where each tensor lies in it."""
        return gradient

    def collude(self, gradient: Vector, round_number: int, rng: np.random.Generator) -> Vector:
        """The vector that the agent submits, shape (d,), having met its accomplices.

        `rng` is the round's stream of the attackers as a group: all of them draw the same numbers from it.
        """
        return gradient


def to_finite_float32(vector: NDArray[np.float64]) -> Vector:
    """The nearest float32 vector that the server would not refuse as not finite."""
    largest = np.finfo(np.float32).max
    return np.clip(vector, -largest, largest).astype(np.float32)
