"""The attack made against FedPG-BR: accomplices agree on one vector that hides within the spread of honest ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from fedpg_common.parameters import Vector

from fedpg_client.attacks.behaviour import Behaviour, to_finite_float32

DEVIATION = 3.0


class Peers(Protocol):
    """How an attacker meets its accomplices."""

    def pool(self, round_number: int, gradient: Vector) -> Sequence[Vector]:
        """Hand in an own gradient (d,) and get the gradients of all attackers, this one's included, by agent index."""
        ...


class FedPGAttack(Behaviour):
    """Submits what the attackers have agreed on (Fan et al. 2021, the FedPG attack; docs/algorithm.md, "Attacks")."""

    def __init__(self, peers: Peers) -> None:
        """`peers` is the attackers' own channel."""
        self._peers = peers

    def collude(self, gradient: Vector, round_number: int, rng: np.random.Generator) -> Vector:
        """The same vector for every attacker that pooled the same gradients."""
        return agreed_vector(self._peers.pool(round_number, gradient), rng)


def agreed_vector(gradients: Sequence[Vector], rng: np.random.Generator) -> Vector:
    """M + 3σ̄·u of at least one gradient (d,): m their mean, 2σ̄ their largest distance, u a random unit vector.

    A lone attacker has σ̄ = 0 and submits its own gradient.
    """
    pooled = np.stack(gradients).astype(np.float64)
    diameter = max(float(np.sqrt(np.square(pooled - row).sum(axis=1)).max()) for row in pooled)
    direction = rng.standard_normal(pooled.shape[1])
    direction /= np.sqrt(np.square(direction).sum())
    return to_finite_float32(pooled.mean(axis=0) + DEVIATION * (diameter / 2.0) * direction)
