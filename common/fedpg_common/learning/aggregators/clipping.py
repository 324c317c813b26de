"""Clipping: centered clipping (Karimireddy et al. 2021), and votes shortened before another rule takes them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.checks import is_number, show
from fedpg_common.learning.aggregators.base import Aggregate, Memory, Mixed, Votes
from fedpg_common.learning.aggregators.checks import check_count, check_faulty, check_positive, tolerated
from fedpg_common.learning.aggregators.distances import distances_to
from fedpg_common.learning.aggregators.median import coordinate_median
from fedpg_common.learning.parameters import Vector

STEPS_MAX = 1000
CENTRE = "centre"
MOMENTUM = "momentum"


class CenteredClipping:
    """v ← v + (1/k) Σ (m^(k) − v) min(1, τ/‖m^(k) − v‖), `steps` times from the last round's μ; then μ = v.

    m^(k) is the agent's momentum β m^(k) + (1 − β) μ^(k), the vote itself with β = 0. The centre v and the momenta are
    the rule's memory; a round in which an agent is absent leaves its momentum as it is. The first round starts at the
    coordinate-wise median.
    Source: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021.
    """

    def __init__(self, radius: float | None = None, steps: int = 3, momentum: float = 0.0) -> None:
        """`radius` is τ, a length; where it is None, in each step the median distance of the votes from v.

        A fixed τ does not grow with the votes, and an attacker moves μ by up to its share of τ in each step. `momentum`
        is β, from 0 to below 1; behind pre-aggregators it is the rows', which are not the same agents' each time.
        """
        check_positive("radius", radius)
        check_count("steps", steps, STEPS_MAX)
        if not (is_number(momentum) and 0 <= momentum < 1):
            raise ValueError(f"momentum must be at least 0 and below 1, not {show(momentum)}")
        self._radius = radius
        self._steps = steps
        self._momentum = momentum
        self.equivariant = ("shift",) if radius is not None else ("shift", "scale")
        self.resists = radius is None

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Clip and average, in the order of the agents. The weights are the shares of the votes that were left."""
        matrix, remembered = self._moving_means(votes, memory)
        centre = coordinate_median(matrix) if CENTRE not in memory else memory[CENTRE].astype(np.float64)
        factors = np.ones(len(matrix))
        radius = 0.0
        for _ in range(self._steps):
            lengths = distances_to(centre, matrix)
            radius = _lower_median(lengths) if self._radius is None else self._radius
            factors = _factors(lengths, radius)
            moved = np.zeros_like(centre)
            for factor, row in zip(factors, matrix, strict=True):
                moved += factor * (row - centre)
            centre = centre + moved / len(matrix)
        answer = _float32(centre)
        return Aggregate(
            vector=answer,
            rule="centered clipping",
            weights=dict(zip(votes.agents, factors.tolist(), strict=True)),
            figures={"clipping-radius": radius, "clipped": float((factors < 1).sum())},
            memory={CENTRE: answer, **remembered},
        )

    def _moving_means(self, votes: Votes, memory: Memory) -> tuple[NDArray[np.float32], dict[str, Vector]]:
        """The agents' momenta (k, d), and what there is to remember of them: those of the absent, too."""
        if not self._momentum:
            return votes.matrix, {}
        remembered = {name: vector for name, vector in memory.items() if name != CENTRE}
        for agent, row in zip(votes.agents, votes.matrix, strict=True):
            name = f"{MOMENTUM}/{agent}"
            if name in remembered:
                before = remembered[name].astype(np.float64)
                row = _float32(self._momentum * before + (1.0 - self._momentum) * row)
            remembered[name] = row
        return np.stack([remembered[f"{MOMENTUM}/{agent}"] for agent in votes.agents]), remembered


class StaticClipping:
    """Votes longer than `length` are shortened to it: μ^(k) min(1, c/‖μ^(k)‖).

    It takes the size out of an attack and not its direction. A c below the honest votes' lengths shortens them, too.
    """

    def __init__(self, length: float = 2.0) -> None:
        """`length` is c."""
        if length is None:
            raise ValueError("length must be a positive number, not None")
        check_positive("length", length)
        self._length = length

    def mix(self, votes: Votes) -> Mixed:
        """Shorten each vote for itself."""
        return _shortened(votes, _lengths(votes.matrix), self._length)


class AdaptiveClipping:
    """ARC: the ⌊2 (f/k) (k − f)⌋ longest votes are shortened to the length of the longest of the others.

    With k ≤ f votes f is taken as k − 1.
    Source: Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan, "Adaptive Gradient Clipping for Robust Federated
    Learning", ICLR 2025 (arXiv 2405.14432).
    """

    equivariant: ClassVar[tuple[str, ...]] = ("scale",)

    def __init__(self, faulty: int | None = None) -> None:
        """`faulty` is f; ⌊αK⌋ where it is None."""
        check_faulty(faulty)
        self._faulty = faulty

    def mix(self, votes: Votes) -> Mixed:
        """Shorten the longest votes."""
        count = len(votes.agents)
        faulty = min(tolerated(votes, self._faulty), count - 1)
        clipped = 2 * faulty * (count - faulty) // count
        lengths = _lengths(votes.matrix)
        return _shortened(votes, lengths, float(np.sort(lengths)[count - 1 - clipped]))


def _shortened(votes: Votes, lengths: NDArray[np.float64], most: float) -> Mixed:
    """The votes with none longer than `most`. Each counts in full, however much of it is left."""
    factors = _factors(lengths, most)
    matrix = np.stack([(factor * row.astype(np.float64)) for factor, row in zip(factors, votes.matrix, strict=True)])
    figures = {"clipping-length": most, "clipped": float((factors < 1).sum())}
    return Mixed(matrix.astype(np.float32), np.eye(len(matrix)), figures)


def _factors(lengths: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """By how much each of these lengths (k,) has to be multiplied to be at most `most`: (k,), 1 for those that are."""
    return most / np.maximum(lengths, most) if most > 0 else np.where(lengths > 0, 0.0, 1.0)


def _lengths(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    return distances_to(np.zeros(matrix.shape[1]), matrix)


def _lower_median(lengths: NDArray[np.float64]) -> float:
    """The median; of an even number the smaller middle one, which is honest while a majority is."""
    return float(np.sort(lengths)[(len(lengths) - 1) // 2])


def _float32(vector: NDArray[np.float64]) -> Vector:
    """Rounded to float32, and finite: steps of a fixed radius can leave its range."""
    limit = np.finfo(np.float32).max
    return np.clip(vector, -limit, limit).astype(np.float32)
