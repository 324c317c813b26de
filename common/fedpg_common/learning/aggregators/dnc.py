"""DnC, divide and conquer (Shejwalkar & Houmansadr 2021)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes, mean_vector
from fedpg_common.learning.aggregators.checks import check_count, check_faulty, check_share, kept
from fedpg_common.learning.aggregators.eigen import top_eigenpair
from fedpg_common.learning.aggregators.spectral import gram_matrix

SEED = 0x446E43
"""Of the coordinates drawn, with the round's number."""
COORDINATES_MIN = 32
DRAWS_MAX = 100


class DnC:
    """The mean of the votes that stand out in none of several draws of coordinates.

    In each draw the votes are centred at their mean and projected on their top right singular vector; the k − f with
    the least squares pass. μ is the mean of those that pass all draws; where none does there is no μ. The draws follow
    from the round's number.
    Source: Shejwalkar, Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
    Federated Learning", NDSS 2021.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")

    def __init__(self, faulty: int | None = None, draws: int = 5, share: float = 0.2) -> None:
        """`faulty` is f, ⌊αK⌋ where it is None; `share` of the coordinates is drawn, 32 at least, `draws` times."""
        check_faulty(faulty)
        check_count("draws", draws, DRAWS_MAX)
        check_share("share", share)
        self._faulty = faulty
        self._draws = draws
        self._share = share

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Filter and average; ties go to the lowest index, and sums run in the order of the agents."""
        k, size = votes.matrix.shape
        drawn = min(size, max(COORDINATES_MIN, round(self._share * size)))
        passes = np.ones(k, dtype=bool)
        for draw in range(self._draws):
            rng = np.random.default_rng([SEED, votes.plan.round_number, draw])
            columns = np.sort(rng.permutation(size)[:drawn])
            gram = gram_matrix(votes.matrix[:, columns])
            products = gram.mean(axis=1)
            centred = gram - products[:, None] - products + products.mean()
            # Of a centred matrix with singular values s, the rows' projections on its first right vector are s_1 u_1.
            projections = np.square(top_eigenpair(centred)[1])
            is_far = np.ones(k, dtype=bool)
            is_far[np.argsort(projections, kind="stable")[: kept(votes, self._faulty)]] = False
            passes &= ~is_far
        rows = np.flatnonzero(passes)
        return Aggregate(
            vector=mean_vector(votes.matrix[rows]).astype(np.float32) if len(rows) else None,
            rule="dnc" if len(rows) else "none",
            weights={votes.agents[row]: 1.0 for row in rows},
        )
