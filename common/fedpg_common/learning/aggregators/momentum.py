"""Momentum that the server keeps (Karimireddy et al. 2021; Farhadkhani et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedpg_common.checks import is_number, show
from fedpg_common.learning.aggregators.base import Memory, Mixed, Votes
from fedpg_common.learning.parameters import Vector

BETA_MAX = 0.9999
COUNTS, MEANS = "rounds", "mean"
COUNT_MAX = 2.0**20
LARGEST = float(np.finfo(np.float32).max)


class Momentum:
    """Each vote becomes the moving mean of what its agent has sent: m_k ← β m_k + (1 − β) μ^(k), over 1 − β^n_k.

    n_k counts the agent's votes, so that a newcomer's mean is of what it has sent so far. Who is absent keeps its mean.
    An attacker who pushes in the same direction in each round is not averaged away, but honest noise is: a rule
    behind this sees the attacker farther out. In return, what it makes of the means is as old as they are.
    It comes first in `after`: behind a pre-aggregator that mixes votes, rows are not the same agents' each time.
    Sources: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021, where agents
    keep it; Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, "Byzantine Machine Learning Made Easy by Resilient
    Averaging of Momentums", ICML 2022.
    """

    equivariant: ClassVar[tuple[str, ...]] = ("shift", "scale")

    def __init__(self, beta: float = 0.9) -> None:
        """`beta` is β: the means are over about 1/(1 − β) rounds."""
        if not (is_number(beta) and 0 <= beta <= BETA_MAX):
            raise ValueError(f"beta must be a number from 0 to {BETA_MAX}, not {show(beta)}")
        self._beta = float(beta)

    def mix(self, votes: Votes) -> Mixed:
        """As in a first round, in which each mean is the vote."""
        return self.mix_remembering(votes, {})[0]

    def mix_remembering(self, votes: Votes, memory: Memory) -> tuple[Mixed, dict[str, Vector]]:
        """See `base.Remembering`: everybody's means, flat, and how many votes are in each."""
        rows = np.array(votes.agents) - 1
        size = votes.matrix.shape[1]
        agents = max(votes.federation_size, int(rows.max()) + 1)
        counts = _padded(memory.get(COUNTS), agents)
        means = _padded(memory.get(MEANS), agents * size).reshape(agents, size)
        moved = self._beta * means[rows].astype(np.float64) + (1.0 - self._beta) * votes.matrix
        counts[rows] = np.minimum(counts[rows] + 1.0, COUNT_MAX)
        begun = 1.0 - self._beta ** counts[rows].astype(np.float64)
        means[rows] = np.clip(moved, -LARGEST, LARGEST)
        shown = np.clip(moved / begun[:, None], -LARGEST, LARGEST).astype(np.float32)
        return Mixed(shown, np.eye(len(rows))), {COUNTS: counts, MEANS: means.ravel()}


def _padded(vector: Vector | None, length: int) -> Vector:
    """The vector with zeros behind it, at least `length` long: a copy."""
    known = np.zeros(0, np.float32) if vector is None else vector
    return np.concatenate([known, np.zeros(max(0, length - len(known)), np.float32)])
