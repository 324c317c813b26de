"""SignGuard (Xu et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.checks import is_number, show
from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes
from fedpg_common.learning.aggregators.checks import check_share
from fedpg_common.learning.aggregators.distances import distances_to

SEED = 0x5349474E
"""Of the coordinates drawn, with the round's number."""
COORDINATES_MIN = 256
"""Below that many all coordinates are looked at: a tenth of a small policy would say nothing about signs."""
SHIFTS_MAX = 100


class SignGuard:
    """The mean of votes of usual length whose signs are those of the largest cluster, shortened to the median length.

    A vote passes if its length is within [`shortest`, `longest`] times the median, and if its shares of positive, zero
    and negative entries, over a tenth of the coordinates drawn from the round's number, belong to the largest cluster
    that mean shift finds. Its kernel is flat, and as wide as the votes' (k/2 − 1)-th neighbour is away on average.
    Where no vote passes there is no μ.
    Source: Xu, Huang, Song, Lan, "Byzantine-robust Federated Learning through Collaborative Malicious Gradient
    Filtering", ICDCS 2022.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("scale",)

    def __init__(self, share: float = 0.1, shortest: float = 0.1, longest: float = 3.0) -> None:
        """`share` of the coordinates is drawn, 256 at least; the other two are multiples of the median length."""
        check_share("share", share)
        if not (is_number(shortest) and 0 <= shortest <= 1):
            raise ValueError(f"shortest must be from 0 to 1, not {show(shortest)}")
        if not (is_number(longest) and longest >= 1):
            raise ValueError(f"longest must be a number of at least 1, not {show(longest)}")
        self._share = share
        self._shortest = shortest
        self._longest = longest

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Filter, shorten and average, in the order of the agents; ties go to the lowest index."""
        lengths = distances_to(np.zeros(votes.matrix.shape[1]), votes.matrix)
        median = float(np.median(lengths))
        is_usual = (lengths >= self._shortest * median) & (lengths <= self._longest * median)
        is_agreed = largest_cluster(self._sign_shares(votes))
        rows = np.flatnonzero(is_usual & is_agreed)
        total = np.zeros(votes.matrix.shape[1], dtype=np.float64)
        for row in rows:
            factor = median / lengths[row] if lengths[row] > median else 1.0
            total += factor * votes.matrix[row]
        return Aggregate(
            vector=(total / len(rows)).astype(np.float32) if len(rows) else None,
            rule="signguard" if len(rows) else "none",
            weights={votes.agents[row]: 1.0 for row in rows},
            figures={"clipping-length": median, "agreed": float(is_agreed.sum()), "usual": float(is_usual.sum())},
        )

    def _sign_shares(self, votes: Votes) -> NDArray[np.float64]:
        """Each vote's shares of positive, zero and negative entries: (k, 3)."""
        size = votes.matrix.shape[1]
        count = min(size, max(COORDINATES_MIN, round(self._share * size)))
        rng = np.random.default_rng([SEED, votes.plan.round_number])
        signs = np.sign(votes.matrix[:, np.sort(rng.permutation(size)[:count])])
        return np.stack([(signs == sign).mean(axis=1) for sign in (1, 0, -1)], axis=1)


def largest_cluster(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the points (k, n) belong to the largest cluster of mean shift: (k,)."""
    # In an order of their own, so that ties do not depend on whose they are: shares of signs are often equal.
    order = np.lexsort(points.T)
    is_largest = np.zeros(len(points), dtype=bool)
    is_largest[order] = _largest_cluster(points[order])
    return is_largest


def _largest_cluster(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    # A minority's (k/2 − 1)-th neighbour is outside it, and a majority's is not: the width is between the two.
    neighbour = min(max(1, len(points) // 2 - 1), len(points) - 1)
    width = float(np.sort(_distances(points, points), axis=1)[:, neighbour].mean())
    modes = points
    for _ in range(SHIFTS_MAX):
        near = (_distances(modes, points) <= width).astype(np.float64)
        count = near.sum(axis=1, keepdims=True)
        # The mean of points all about it may have none of them near: there it stays.
        shifted = np.where(count > 0, near @ points / np.maximum(count, 1.0), modes)
        moved = float(np.abs(shifted - modes).max())
        modes = shifted
        if moved <= 1e-3 * width:
            break
    # The densest mode takes all that came to within its width; then the densest of those left.
    density = (_distances(modes, points) <= width).sum(axis=1)
    cluster = np.full(len(points), -1)
    sizes: list[int] = []
    for mode in np.argsort(-density, kind="stable"):
        if cluster[mode] < 0:
            members = (cluster < 0) & (_distances(modes[mode : mode + 1], modes)[0] <= width)
            members[mode] = True
            cluster[members] = len(sizes)
            sizes.append(int(members.sum()))
    return np.asarray(cluster == int(np.argmax(sizes)))


def _distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.square(one[:, None, :] - other[None, :, :]).sum(axis=2)))
