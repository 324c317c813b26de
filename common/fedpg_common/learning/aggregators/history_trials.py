"""What `history` makes of a round in which some agents submit the same vector, for many vectors at once.

Attackers who search try hundreds of vectors on one and the same round, with a memory that is empty. All horizons agree
then: the mean deviations are those of the round, and their geometric median is zero. So a vote's weight is that of its
distance to the round's geometric median, in units of the lower median of these distances; and the honest votes' inner
products are the same for all vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.aggregators.base import Aggregate, Votes
from fedpg_common.learning.aggregators.distances import pairwise_distances
from fedpg_common.learning.aggregators.shares import FLOOR, STEPS

NUMBERS_AT_ONCE = 2**20
"""Numbers of vectors that are worked on together: 8 MB."""
RESOLVED = 1e-5
"""A distance that is a smaller part of the largest loses more than six of its sixteen digits in inner products."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trials:
    """A round, but for what the agents in some rows of it submit."""

    votes: Votes
    """All of them: what stands in those rows is not looked at."""
    rows: tuple[int, ...]
    """At least one, and not all."""
    weight: Callable[[Numbers], Numbers]
    """ψ, of deviations of any shape."""
    least_weight: float
    length_max: float
    """In scales, from the coordinate-wise median, beyond which votes are shortened."""

    def of(self, vectors: NDArray[np.float32]) -> list[Aggregate | None]:
        """What the rule makes of each of the vectors (c, d) but for its figures and its memory.

        Equal to what it makes of them one by one up to the rounding of float64. None where that has to be asked: other
        rows would be shortened, or the round has no scale.
        """
        step = max(1, NUMBERS_AT_ONCE // max(vectors.shape[1], 1))
        pieces = [vectors[start : start + step] for start in range(0, len(vectors), step)]
        return [answer for piece in pieces for answer in self._of(piece)]

    def _of(self, vectors: NDArray[np.float32]) -> list[Aggregate | None]:
        matrix = self.votes.matrix
        others = [row for row in range(len(matrix)) if row not in self.rows]
        honest = matrix[others].astype(np.float64)
        scales = self._scales(pairwise_distances(matrix[others]), squared_distances(honest, vectors), others)
        middles = self._middles(np.sort(matrix[others], axis=0), vectors)
        longest = self.length_max * scales
        is_safe = (scales > 0) & (squared_distances(honest, middles).max(axis=1) < np.square(longest))
        shortened = vectors - middles
        lengths = np.sqrt(np.einsum("ij,ij->i", shortened, shortened))
        shortened *= np.minimum(1.0, longest / np.maximum(lengths, 1e-300))[:, None]
        shortened += middles
        origin = honest.mean(axis=0)
        squares = to_the_median(honest - origin, shortened - origin, len(self.rows))
        distances = np.sqrt(self._to_rows(squares, others))
        units = np.sort(distances, axis=1)[:, (len(matrix) - 1) // 2]
        # Where half of the votes lie in one point, their distances to it are nothing but rounding.
        is_safe &= units > RESOLVED * distances.max(axis=1)
        weights = self.weight(distances / np.where(is_safe, units, 1.0)[:, None])
        return self._answers(vectors, weights, is_safe)

    def _answers(
        self, vectors: NDArray[np.float32], weights: Numbers, is_safe: NDArray[np.bool_]
    ) -> list[Aggregate | None]:
        totals = weights.sum(axis=1)
        parts = weights / np.maximum(totals, self.least_weight)[:, None]
        mu = np.zeros(vectors.shape)
        for row, vote in enumerate(self.votes.matrix):  # in their order, as the rule adds them
            submitted = vectors if row in self.rows else vote
            mu += parts[:, row, None] * submitted.astype(np.float64)
        made = mu.astype(np.float32)
        return [
            Aggregate(
                vector=made[place] if totals[place] >= self.least_weight else None,
                rule="history",
                weights=dict(zip(self.votes.agents, weights[place].tolist(), strict=True)),
            )
            if is_safe[place]
            else None
            for place in range(len(vectors))
        ]

    def _scales(self, honest: Numbers, to_vectors: Numbers, others: list[int]) -> Numbers:
        """What `scale.scale_of` makes of the rounds, (c,): of distances (h, h), and squared distances (c, h)."""
        count = len(self.votes.matrix)
        squares = np.zeros((len(to_vectors), count, count))
        squares[np.ix_(range(len(squares)), others, others)] = np.square(honest)
        for row in self.rows:
            squares[:, row, others] = squares[:, others, row] = to_vectors
        near = min(max(1, (self.votes.federation_size - self.votes.faulty) // 2), count - 1)
        nearest = np.sort(np.sort(squares, axis=2)[:, :, near], axis=1)[:, (count - 1) // 2]
        return np.asarray(np.sqrt(nearest / 2.0))

    def _middles(self, ordered: NDArray[np.float32], vectors: NDArray[np.float32]) -> Numbers:
        """The votes' coordinate-wise medians, (c, d): the vectors, kept between two of the other rows (h, d)."""
        count = len(self.votes.matrix)
        both = np.zeros(vectors.shape)
        for place in ((count - 1) // 2, count // 2):
            middle = vectors
            if place >= len(self.rows):
                middle = np.maximum(middle, ordered[place - len(self.rows)])
            if place < len(ordered):
                middle = np.minimum(middle, ordered[place])
            both += middle
        both *= 0.5
        return both

    def _to_rows(self, values: Numbers, others: list[int]) -> Numbers:
        """Values of the other rows, and in the last column of these, (c, h + 1), in the rows' order: (c, k)."""
        result = np.empty((len(values), len(self.votes.matrix)))
        result[:, others] = values[:, :-1]
        result[:, list(self.rows)] = values[:, -1:]
        return result


def squared_distances(rows: Numbers, points: NDArray[np.float32] | Numbers) -> Numbers:
    """From points (c, d) to rows (h, d): shape (c, h)."""
    return np.stack([np.square(points - row).sum(axis=1) for row in rows], axis=1)


def to_the_median(rows: Numbers, vectors: Numbers, copies: int) -> Numbers:
    """Squared distances to the geometric median of rows (h, d) and one of the vectors (c, d), which counts several
    times: (c, h + 1), the vector's last. Both are as seen from an origin among the rows.

    The steps are those of `shares.geometric_median`, from inner products.
    """
    among, across = rows @ rows.T, vectors @ rows.T
    lengths = np.einsum("ij,ij->i", vectors, vectors)
    squares = np.concatenate([np.broadcast_to(np.diag(among), across.shape), lengths[:, None]], axis=1)
    times = np.append(np.ones(len(rows)), float(copies))

    def distances(shares: Numbers) -> Numbers:
        products = np.empty(squares.shape)
        products[:, :-1] = shares[:, :-1] @ among + shares[:, -1:] * across
        products[:, -1] = np.einsum("ij,ij->i", shares[:, :-1], across) + shares[:, -1] * lengths
        own = np.einsum("ij,ij->i", shares, products)
        return np.asarray(np.maximum(squares - 2.0 * products + own[:, None], 0.0))

    shares = np.broadcast_to(times / times.sum(), squares.shape)
    for _ in range(STEPS):
        now = distances(shares)
        pull = times / np.sqrt(np.maximum(now, FLOOR * now.max(axis=1, keepdims=True) + 1e-300))
        shares = pull / pull.sum(axis=1, keepdims=True)
    return distances(shares)


def can_be_tried(votes: Votes, rows: tuple[int, ...]) -> bool:
    """Whether `Trials` are for this round: the server's scale is not known, and somebody else votes."""
    return votes.server_scale is None and 0 < len(rows) < len(votes.agents)
