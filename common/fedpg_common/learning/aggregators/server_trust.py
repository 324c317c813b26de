"""Rules that trust the server's own gradient: MoNNA (Farhadkhani et al. 2023) and FLTrust (Cao et al. 2021)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes, mean_vector
from fedpg_common.learning.aggregators.checks import check_count, check_faulty, kept
from fedpg_common.learning.aggregators.distances import distances_to
from fedpg_common.learning.parameters import Vector

BATCH_MAX = 10_000
"""Trajectories of the server's own batch, at most."""


class MoNNA:
    """The mean of the k − f votes that are nearest to the server's own gradient.

    That gradient chooses, and is not itself averaged. With f or fewer votes μ is the nearest of them.
    Source: Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan, "Robust Collaborative Learning with Linear Gradient
    Overhead", ICML 2023.
    """

    needs_reference: ClassVar[bool] = True

    def __init__(self, faulty: int | None = None, batch: int | None = None) -> None:
        """`faulty` is f, ⌊αK⌋ where it is None; `batch` the trajectories of the server's gradient, likewise B_t."""
        check_faulty(faulty)
        self._faulty = faulty
        self.reference_batch = _checked_batch(batch)

    def check_federation(self, votes: Votes) -> None:
        """Raise ValueError where there is no such gradient."""
        _server_gradient(votes, "monna")

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Select and average; ties go to the lowest index, and sums run in the order of the agents."""
        trusted = _server_gradient(votes, "monna").astype(np.float64)
        distances = distances_to(trusted, votes.matrix)
        chosen = np.sort(np.argsort(distances, kind="stable")[: kept(votes, self._faulty)])
        return Aggregate(
            vector=mean_vector(votes.matrix[chosen]).astype(np.float32),
            rule="monna",
            weights={votes.agents[row]: 1.0 for row in chosen},
            figures={"farthest-averaged": float(distances[chosen].max())},
        )


class FLTrust:
    """μ = Σ s_k (‖g‖/‖μ^(k)‖) μ^(k) / Σ s_k with trust s_k = max(0, cos(μ^(k), g)), g the server's own gradient.

    μ is never longer than g. Where no vote points the server's way, or one of the lengths is 0, there is none.
    Source: Cao, Fang, Liu, Gong, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021.
    """

    unanimous: ClassVar[bool] = False
    """Its answer has about the length of the server's gradient, also where all votes are the same."""

    needs_reference: ClassVar[bool] = True

    def __init__(self, batch: int | None = None) -> None:
        """`batch` is how many trajectories the server's gradient is made of; B_t where it is None."""
        self.reference_batch = _checked_batch(batch)

    def check_federation(self, votes: Votes) -> None:
        """Raise ValueError where there is no such gradient."""
        _server_gradient(votes, "fltrust")

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Weigh and average, in the order of the agents. The weights are parts of the greatest trust."""
        trusted = _server_gradient(votes, "fltrust").astype(np.float64)
        length = float(np.sqrt(np.square(trusted).sum()))
        lengths = distances_to(np.zeros_like(trusted), votes.matrix)
        scores = np.zeros(len(lengths))
        total = np.zeros_like(trusted)
        for place, row in enumerate(votes.matrix):
            if length * lengths[place] > 0:
                scores[place] = max(0.0, float((row * trusted).sum()) / (length * lengths[place]))
                total += scores[place] * (length / lengths[place]) * row
        most = scores.max()
        weights = scores / most if most > 0 else scores
        return Aggregate(
            vector=(total / scores.sum()).astype(np.float32) if most > 0 else None,
            rule="fltrust" if most > 0 else "none",
            weights=dict(zip(votes.agents, weights.tolist(), strict=True)),
            figures={"trust": float(scores.sum())},
        )


def _checked_batch(batch: int | None) -> int | None:
    if batch is not None:
        check_count("batch", batch, BATCH_MAX)
    return batch


def _server_gradient(votes: Votes, rule: str) -> Vector:
    if votes.server_gradient is None:
        raise ValueError(
            f"{rule} trusts the server's own gradient, and the algorithm does not estimate one: take one with "
            "reference_gradient, or another rule"
        )
    return votes.server_gradient
