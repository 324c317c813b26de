"""Bulyan (El Mhamdi et al. 2018)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes
from fedpg_common.learning.aggregators.checks import check_faulty, tolerated
from fedpg_common.learning.aggregators.meamed import mean_around_median


class Bulyan:
    """Krum selects θ = k − 2f votes one by one; of each coordinate the θ − 2f values nearest to the median count.

    It needs K ≥ 4f + 3 agents, and is refused otherwise: 10 agents bear `faulty=1`. While fewer than 4f + 3 have voted,
    both counts are one at least, and nothing is promised.
    Source: El Mhamdi, Guerraoui, Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")
    resists: ClassVar[bool] = False
    """Not against ⌊αK⌋ faulty where α is above a quarter, which is what `fedpg check` tries."""

    def __init__(self, faulty: int | None = None) -> None:
        """`faulty` is f; ⌊αK⌋ where it is None."""
        check_faulty(faulty)
        self._faulty = faulty

    def check_federation(self, votes: Votes) -> None:
        """Raise ValueError where there are too few agents for f."""
        faulty, K = tolerated(votes, self._faulty), votes.federation_size
        if 4 * faulty + 3 > K:
            raise ValueError(
                f"bulyan needs 4f + 3 agents, which are {4 * faulty + 3} with f = {faulty}, and there are {K}: "
                f"set faulty to at most {max(0, (K - 3) // 4)}, or take another rule"
            )

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Select, and average around the median; ties go to the lowest index, see `_best`."""
        faulty = tolerated(votes, self._faulty)
        selected = max(1, len(votes.agents) - 2 * faulty)
        chosen = np.sort(_select(np.square(votes.distances), selected, faulty))
        averaged = max(1, selected - 2 * faulty)
        return Aggregate(
            vector=mean_around_median(votes.matrix[chosen], averaged).astype(np.float32),
            rule="bulyan",
            weights={votes.agents[row]: 1.0 for row in chosen},
            figures={"averaged": float(averaged)},
        )


def _select(squares: NDArray[np.float64], count: int, faulty: int) -> NDArray[np.int64]:
    """`count` rows of squared distances (k, k), each the one with the best Krum score among those that are left."""
    left = np.arange(len(squares))
    # Each row's other rows in order of distance: one that is selected is struck out, and nothing is sorted again.
    order = np.argsort(np.where(np.eye(len(squares), dtype=bool), -1.0, squares), axis=1, kind="stable")[:, 1:]
    ordered = np.take_along_axis(squares, order, axis=1)
    chosen: list[int] = []
    while len(left) > 1 and len(chosen) < count:
        neighbours = min(max(1, len(left) - faulty - 2), len(left) - 1)
        best = _best(ordered, neighbours)
        chosen.append(int(left[best]))
        order, ordered = np.delete(order, best, axis=0), np.delete(ordered, best, axis=0)
        left = np.delete(left, best)
        stays = order != chosen[-1]
        order, ordered = order[stays].reshape(len(left), -1), ordered[stays].reshape(len(left), -1)
    return np.array([*chosen, *left][:count], dtype=np.int64)


def _best(ordered: NDArray[np.float64], neighbours: int) -> int:
    """The row with the least sum of its first `neighbours`. Two that are each other's nearest have the same with one
    neighbour: then the next one counts, too, so that it does not matter who is who.
    """
    scores = ordered[:, :neighbours].sum(axis=1)
    equals = np.flatnonzero(scores == scores.min())
    return int(equals[np.argmin(ordered[equals, : neighbours + 1].sum(axis=1))])
