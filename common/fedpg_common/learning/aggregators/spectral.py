"""Rules that look at the votes' covariance: CAF (Allouah et al. 2025) and SMEA (Allouah et al. 2023).

Its eigenvalues are those of the k×k Gram matrix of the centred votes, and exact. There is no random start and no number
of power iterations to choose.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes, mean_vector
from fedpg_common.learning.aggregators.checks import check_faulty, kept, tolerated
from fedpg_common.learning.aggregators.eigen import top_eigenpair
from fedpg_common.learning.aggregators.median import coordinate_median

SUBSETS_MAX = 30_000
"""How many subsets SMEA tries at most."""
AT_ONCE = 1000
"""Subsets whose eigenvalues are found together."""
NEGLIGIBLE = 1e-12
"""A weight that is left of a vote by rounding, and counts as 0: times a huge vote it would not be small."""
TILE_DIMENSIONS = 1024


class CAF:
    """The covariance-bound agnostic filter: votes lose weight as they lie along the direction of greatest variance.

    All weights c_k begin as 1. Until Σ c ≤ k − 2f: μ_c = Σ c_k μ^(k) / Σ c; v is the top eigenvector of the weighted
    covariance; t_k = ⟨μ^(k) − μ_c, v⟩²; c_k ← c_k (1 − t_k / max t). The result is the μ_c that had the least top
    eigenvalue. With 2f or more votes absent it stops when one vote's weight is left.
    Source: Allouah, Guerraoui, Stephan, "Towards Trustworthy Federated Learning with Untrusted Participants", ICML
    2025.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")

    def __init__(self, faulty: int | None = None) -> None:
        """`faulty` is f; ⌊αK⌋ where it is None."""
        check_faulty(faulty)
        self._faulty = faulty

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Filter and average, in the order of the agents. The weights are c as it was for the result."""
        gram = gram_matrix(votes.matrix)
        least = max(1, len(votes.agents) - 2 * tolerated(votes, self._faulty))
        weights, eigenvalue, steps = _filtered(gram, least)
        total = np.zeros(votes.matrix.shape[1], dtype=np.float64)
        for weight, row in zip(weights, votes.matrix, strict=True):
            if weight:
                total += weight * row
        return Aggregate(
            vector=(total / weights.sum()).astype(np.float32),
            rule="caf",
            weights=dict(zip(votes.agents, weights.tolist(), strict=True)),
            figures={"top-eigenvalue": eigenvalue, "steps": float(steps)},
        )


class SMEA:
    """The mean of the k − f votes whose covariance has the least top eigenvalue; of equals the first in order.

    All C(k, f) subsets are tried, 30,000 at most: a federation that could have more is refused. With f or fewer votes
    μ is the first of them.
    Source: Allouah, Guerraoui, Gupta, Pinot, Stephan, "On the Privacy-Robustness-Utility Trilemma in Distributed
    Learning", ICML 2023.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")

    def __init__(self, faulty: int | None = None) -> None:
        """`faulty` is f; ⌊αK⌋ where it is None."""
        check_faulty(faulty)
        self._faulty = faulty

    def check_federation(self, votes: Votes) -> None:
        """Raise ValueError where there are too many subsets."""
        count, size = len(votes.agents), kept(votes, self._faulty)
        subsets = math.comb(count, size)
        if subsets > SUBSETS_MAX:
            raise ValueError(
                f"smea tries all subsets of {size} of {count} votes, at most {SUBSETS_MAX:,}, and there are "
                f"{subsets:.3g}: set faulty, or take another rule"
            )

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Try all subsets, and average the best in the order of the agents."""
        self.check_federation(votes)
        gram = gram_matrix(votes.matrix)
        best, least = np.arange(1), math.inf
        for subsets in _batches(len(gram), kept(votes, self._faulty)):
            eigenvalues = _top_eigenvalues(gram, subsets)
            first = int(np.argmin(eigenvalues))
            if eigenvalues[first] < least:
                best, least = subsets[first], float(eigenvalues[first])
        return Aggregate(
            vector=mean_vector(votes.matrix[best]).astype(np.float32),
            rule="smea",
            weights={votes.agents[row]: 1.0 for row in best},
            figures={"top-eigenvalue": max(0.0, least)},
        )


def gram_matrix(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Inner products of the rows of (k, d) as seen from their coordinate-wise median: shape (k, k).

    From there, and not from the origin, votes that are close to each other keep their digits.
    """
    median = coordinate_median(matrix)
    products = np.zeros((len(matrix), len(matrix)), dtype=np.float64)
    for start in range(0, matrix.shape[1], TILE_DIMENSIONS):
        columns = slice(start, start + TILE_DIMENSIONS)
        tile = matrix[:, columns] - median[columns]
        products += tile @ tile.T
    return products


def _filtered(gram: NDArray[np.float64], least: float) -> tuple[NDArray[np.float64], float, int]:
    """CAF's weights (k,) for the least top eigenvalue met, that eigenvalue, and how many were computed."""
    weights = np.ones(len(gram))
    best, best_eigenvalue, steps = weights, math.inf, 0
    while True:
        # Rows without weight are left out, not multiplied by 0: theirs may be the numbers in which others drown.
        rows = np.flatnonzero(weights)
        shares = weights[rows] / weights[rows].sum()
        centred = _centred(gram[np.ix_(rows, rows)], shares)
        roots = np.sqrt(shares)
        eigenvalue, vector = top_eigenpair(roots[:, None] * centred * roots)
        steps += 1
        if eigenvalue < best_eigenvalue:
            best, best_eigenvalue = weights.copy(), max(0.0, eigenvalue)
        # v is Σ_j √share_j u_j (μ^(j) − μ_c) but for its length, which cancels in t / max t.
        along = np.square(centred @ (roots * vector))
        if not along.max() > 0:
            return best, best_eigenvalue, steps
        weights[rows] *= 1.0 - along / along.max()
        weights[weights < NEGLIGIBLE] = 0.0
        if not weights.sum() > least:
            return best, best_eigenvalue, steps


def _centred(gram: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner products (…, k, k) as seen from the mean with these shares (k,), which add up to 1."""
    products = gram @ shares
    centred = gram - products[..., :, None] - products[..., None, :]
    return np.asarray(centred + (products @ shares)[..., None, None])


def _top_eigenvalues(gram: NDArray[np.float64], subsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """The top eigenvalue of the covariance of each of the subsets (m, s) of rows: shape (m,)."""
    size = subsets.shape[1]
    parts = gram[subsets[:, :, None], subsets[:, None, :]]
    return np.asarray(np.linalg.eigvalsh(_centred(parts, np.full(size, 1.0 / size)) / size)[:, -1])


def _batches(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    """All subsets of `size` of `count` rows in lexicographic order, many at a time: (m, size) each."""
    subsets = itertools.combinations(range(count), size)
    while batch := list(itertools.islice(subsets, AT_ONCE)):
        yield np.array(batch, dtype=np.int64)
