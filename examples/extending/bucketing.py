"""A pre-aggregator: votes are averaged in random buckets (Karimireddy, He & Jaggi 2022), and a filter takes the means.

aggregator = { name = "krum", after = [{ name = "bucketing:Bucketing", size = 2 }] }
"""

from __future__ import annotations

import numpy as np
from fedpg_common.learning.aggregators import Mixed, Votes, mean_vector


class Bucketing:
    """As many rows as there are buckets; a Byzantine agent spoils one of them."""

    # What it says in `fedpg check`: who shares a bucket is drawn, and with the tolerated ⌊αK⌋ = 4 of 10 attackers, four
    # of five buckets of two may be spoilt.
    symmetric = False
    resists = False

    def __init__(self, size: int = 2) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self._size = size

    def mix(self, votes: Votes) -> Mixed:
        count = len(votes.agents)
        # Drawn from the round's number: a round that is computed again has the same buckets.
        order = np.random.default_rng(votes.plan.round_number).permutation(count)
        buckets = [np.sort(order[start : start + self._size]) for start in range(0, count, self._size)]
        shares = np.zeros((len(buckets), count))
        for row, members in enumerate(buckets):
            shares[row, members] = 1.0 / len(members)
        means = [mean_vector(votes.matrix[members]).astype(np.float32) for members in buckets]
        return Mixed(np.stack(means), shares, figures={"buckets": float(len(buckets))})
