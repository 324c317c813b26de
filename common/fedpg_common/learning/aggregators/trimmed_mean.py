"""The coordinate-wise trimmed mean (Yin et al. 2018)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedpg_common.learning.aggregators.base import Aggregate, Memory, Votes, mean_vector
from fedpg_common.learning.aggregators.checks import check_faulty


class TrimmedMean:
    """μ_j = the mean of the votes' coordinate j without its f largest and its f smallest values.

    f does not fall when agents are absent: those may be honest. Where 2f values leave nothing, as many are trimmed as
    leave the middle.
    Source: Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
    Rates", ICML 2018.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")

    def __init__(self, faulty: int | None = None) -> None:
        """`faulty` is f; ⌊αK⌋ where it is None."""
        check_faulty(faulty)
        self._faulty = faulty

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """The trimmed mean of each coordinate, added from the smallest value on."""
        count = len(votes.agents)
        faulty = votes.faulty if self._faulty is None else self._faulty
        trimmed = min(faulty, (count - 1) // 2)
        ordered = np.sort(votes.matrix, axis=0)[trimmed : count - trimmed]
        return Aggregate(
            mean_vector(ordered).astype(np.float32), rule="trimmed mean", figures={"trimmed": float(trimmed)}
        )
