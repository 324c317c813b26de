"""Bucketing (Karimireddy et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedpg_common.learning.aggregators.base import Mixed, Votes, mean_vector
from fedpg_common.learning.aggregators.checks import check_count

SEED = 0x4255434B
"""Of the buckets drawn, with the round's number."""
SIZE_MAX = 10_000


class Bucketing:
    """Votes are put at random into buckets of `size`, and the buckets' means take their place.

    A Byzantine agent spoils one bucket. The rule behind it has ⌈k/size⌉ rows, of which f may still be spoilt, so that
    f must be below k / (2 size). Who shares a bucket follows from the round's number; the last bucket may be smaller.
    Source: Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")
    symmetric: ClassVar[bool] = False
    """Who shares a bucket is drawn."""
    resists: ClassVar[bool] = False
    """Of ten agents in buckets of two, four attackers may spoil four of the five."""

    def __init__(self, size: int = 2) -> None:
        """`size` is s, votes per bucket."""
        check_count("size", size, SIZE_MAX)
        self._size = size

    def mix(self, votes: Votes) -> Mixed:
        """Draw the buckets, and average each in the order of the agents."""
        count = len(votes.agents)
        order = np.random.default_rng([SEED, votes.plan.round_number]).permutation(count)
        buckets = [np.sort(order[start : start + self._size]) for start in range(0, count, self._size)]
        shares = np.zeros((len(buckets), count))
        for row, members in enumerate(buckets):
            shares[row, members] = 1.0 / len(members)
        matrix = np.stack([mean_vector(votes.matrix[members]) for members in buckets]).astype(np.float32)
        return Mixed(matrix, shares, figures={"buckets": float(len(buckets))})
