"""An algorithm: one Adam step per round on a moving mean of μ, without an inner loop.

fedpg train --algorithm heavy_ball:HeavyBall --set algorithm.beta=0.8 --aggregator krum
"""

from __future__ import annotations

import numpy as np
from fedpg_common.learning.aggregators import RoundPlan
from fedpg_common.learning.parameters import Vector
from fedpg_server.learning.algorithms.base import InnerReport, Tools
from fedpg_server.learning.state import State


class HeavyBall:
    """m ← β m + (1 − β) μ, and one step on m; a round without μ takes a step on what is left of m."""

    default_aggregator = "fedpg"

    def __init__(self, tools: Tools, beta: float = 0.9) -> None:
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be at least 0 and below 1, not {beta}")
        self._tools = tools
        self._beta = np.float32(beta)

    def plan(self, round_number: int) -> RoundPlan:
        return RoundPlan(round_number, self._tools.task.batch_size, inner_steps=0)

    def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> tuple[State, InnerReport]:
        report = InnerReport()
        m = self._beta * state.vectors.get("algorithm/m", np.zeros_like(state.theta))
        if mu is not None:
            m = m + (1 - self._beta) * mu
        stepped = self._tools.step(state, m, report)
        return stepped.with_vectors({"algorithm/m": m}), report
