"""Krum and Multi-Krum (Blanchard et al. 2017)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.checks import is_whole, show
from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes, mean_vector
from fedpg_common.learning.aggregators.checks import check_faulty


class MultiKrum:
    """The mean of the m votes whose score is least: the sum of squared distances to their k − f − 2 nearest votes.

    Source: Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent", NeurIPS 2017.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")
    rule: ClassVar[str] = "multi-krum"

    def __init__(self, faulty: int | None = None, selected: int | None = None) -> None:
        """`faulty` is f, ⌊αK⌋ where it is None; `selected` is m, k − f where it is None."""
        check_faulty(faulty)
        if selected is not None and not (is_whole(selected) and selected >= 1):
            raise ValueError(f"selected must be a whole number of at least 1, not {show(selected)}")
        self._faulty = faulty
        self._selected = selected

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Select and average; ties go to the lowest index, and sums run in the order of the agents."""
        count = len(votes.agents)
        faulty = votes.faulty if self._faulty is None else self._faulty
        selected = max(1, count - faulty) if self._selected is None else min(self._selected, count)
        scores = krum_scores(votes.distances, max(1, count - faulty - 2))
        chosen = np.sort(np.argsort(scores, kind="stable")[:selected])
        return Aggregate(
            vector=mean_vector(votes.matrix[chosen]).astype(np.float32),
            rule=self.rule,
            weights={votes.agents[row]: 1.0 for row in chosen},
            figures={"score": float(scores[chosen].min())},
            median_agent=votes.agents[int(np.argmin(scores))],
        )


class Krum(MultiKrum):
    """The one vote whose score is least: Multi-Krum with m = 1."""

    rule: ClassVar[str] = "krum"

    def __init__(self, faulty: int | None = None) -> None:
        """`faulty` is f; ⌊αK⌋ where it is None."""
        super().__init__(faulty, selected=1)


def krum_scores(distances: NDArray[np.float64], neighbours: int) -> NDArray[np.float64]:
    """Each vote's sum of squared distances (k, k) to its nearest `neighbours` other votes, the nearest first: (k,)."""
    if len(distances) == 1:
        return np.zeros(1)
    others = np.square(distances)
    np.fill_diagonal(others, np.inf)
    nearest = np.sort(others, axis=1)[:, : min(neighbours, len(distances) - 1)]
    return np.asarray(nearest.sum(axis=1))
