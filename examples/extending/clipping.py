"""A stateful aggregator: centred clipping with a memory (Karimireddy, He & Jaggi 2021).

fedpg train --byzantine 3 --aggregator clipping:CentredClipping --set radius=0.05
"""

from __future__ import annotations

import numpy as np
from fedpg_common.learning.aggregators import Aggregate, Memory, Votes


class CentredClipping:
    """Votes are shortened until they lie within `radius` of the last round's answer, and averaged."""

    resists = False  # each round an attacker moves it by up to its share of the radius: it says so in `fedpg check`

    def __init__(self, radius: float = 0.1, steps: int = 3) -> None:
        if not radius > 0:
            raise ValueError(f"radius must be a positive number, not {radius}")
        self._radius = radius
        self._steps = steps

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        rows = votes.matrix.astype(np.float64)
        centre = memory.get("centre", np.zeros(rows.shape[1], np.float32)).astype(np.float64)
        for _ in range(self._steps):
            lengths = np.linalg.norm(rows - centre, axis=1)
            kept = self._radius / np.maximum(lengths, self._radius)  # how much of each vote's distance counts
            centre = centre + (kept[:, None] * (rows - centre)).mean(axis=0)
        answer = centre.astype(np.float32)
        return Aggregate(
            answer,
            rule="clipping",
            weights=dict(zip(votes.agents, kept.tolist(), strict=True)),
            figures={"clipped": float((kept < 1).sum())},
            memory={"centre": answer},
        )
