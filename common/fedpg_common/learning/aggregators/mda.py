"""MDA, minimum-diameter averaging (Rousseeuw 1985; El Mhamdi et al. 2018)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes, mean_vector
from fedpg_common.learning.aggregators.checks import check_faulty, kept, tolerated

FAULTY_MAX = 16
"""The largest f: the search visits at most 2^f sets per diameter that it tries, far fewer for real votes."""


class MDA:
    """The mean of the k − f votes with the least diameter, max ‖μ^(i) − μ^(j)‖.

    Several subsets often have it, since two votes decide it: of these the one with the most central votes is taken,
    those whose k − f nearest votes are nearest in sum. Only between equals of that the lowest index decides.
    It is exact, but does not try all subsets: a subset has diameter ≤ t if the f votes left out touch every pair that
    is farther apart than t, which is decided for growing t by branching on who is left out. f is at most 16. With f or
    fewer votes μ is one of them.
    Source: El Mhamdi, Guerraoui, Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018,
    after Rousseeuw, "Multivariate estimation with high breakdown point", 1985.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")

    def __init__(self, faulty: int | None = None) -> None:
        """`faulty` is f; ⌊αK⌋ where it is None."""
        check_faulty(faulty)
        self._faulty = faulty

    def check_federation(self, votes: Votes) -> None:
        """Raise ValueError where f is larger than what can be searched."""
        faulty = tolerated(votes, self._faulty)
        if faulty > FAULTY_MAX:
            raise ValueError(
                f"mda searches subsets without f votes, f at most {FAULTY_MAX}, not {faulty}: set faulty, or take "
                "another rule"
            )

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Search and average, in the order of the agents."""
        self.check_federation(votes)
        chosen = least_diameter(votes.distances, kept(votes, self._faulty))
        return Aggregate(
            vector=mean_vector(votes.matrix[chosen]).astype(np.float32),
            rule="mda",
            weights={votes.agents[row]: 1.0 for row in chosen},
            figures={"diameter": float(votes.distances[np.ix_(chosen, chosen)].max())},
        )


def least_diameter(distances: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """The subset of `size` rows of (k, k) whose largest distance is least, ascending; of equals see `MDA`."""
    count = len(distances)
    central = np.argsort(np.sort(distances, axis=1)[:, :size].sum(axis=1), kind="stable")
    distances = distances[np.ix_(central, central)]
    diameters = np.unique(distances[np.triu_indices(count, k=1)]) if size > 1 else np.zeros(1)
    low, high = 0, len(diameters) - 1
    while low < high:
        middle = (low + high) // 2
        far = _neighbours(distances > diameters[middle])
        if _can_cover(far, (1 << count) - 1, count - size):
            high = middle
        else:
            low = middle + 1
    return np.sort(central[_first_subset(_neighbours(distances > diameters[low]), size)])


def _first_subset(far: list[int], size: int) -> NDArray[np.int64]:
    """The first subset of `size` rows in lexicographic order without a pair that is far apart. There must be one."""
    chosen: list[int] = []
    left = (1 << len(far)) - 1
    for row in range(len(far)):
        if len(chosen) == size:
            break
        if not left >> row & 1:
            continue
        # With this row, whoever is far from it is out; of the rest as many may still be left out as leave `size`.
        later = left & ~far[row] & ~((2 << row) - 1)
        needed = size - len(chosen) - 1
        if later.bit_count() >= needed and _can_cover(far, later, later.bit_count() - needed):
            chosen.append(row)
            left = later
        else:
            left &= ~(1 << row)
    return np.array(chosen, dtype=np.int64)


def _neighbours(is_far: NDArray[np.bool_]) -> list[int]:
    """Per row, the set of rows that are far from it, as bits."""
    packed = np.packbits(is_far, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _can_cover(far: list[int], left: int, most: int) -> bool:
    """Whether leaving out at most `most` of the rows in `left` leaves no two that are far apart."""
    worst, degree, total = -1, 0, 0
    rest = left
    while rest:
        row = (rest & -rest).bit_length() - 1
        rest &= rest - 1
        far_from_it = (far[row] & left).bit_count()
        if far_from_it > degree:
            worst, degree = row, far_from_it
        total += far_from_it
    if not degree:
        return True
    # Each row left out resolves at most `degree` of the total / 2 pairs.
    if total > 2 * most * degree:
        return False
    without = left & ~(1 << worst)
    if _can_cover(far, without, most - 1):
        return True
    # Otherwise it stays, and all that are far from it go.
    return degree <= most and _can_cover(far, without & ~far[worst], most - degree)
