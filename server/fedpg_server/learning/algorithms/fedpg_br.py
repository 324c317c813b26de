"""FedPG-BR (Fan et al. 2021, Algorithm 1)."""

from __future__ import annotations

from typing import ClassVar

from fedpg_common.learning.aggregators.base import RoundPlan
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.streams import Purpose

from fedpg_server.learning.algorithms.base import InnerReport, Tools
from fedpg_server.learning.algorithms.inner_loop import variance_reduced_steps
from fedpg_server.learning.state import State


class FedPGBR:
    """Batches and inner loops of random size, and variance-reduced steps on filtered gradients."""

    default_aggregator: ClassVar[str] = "fedpg"

    def __init__(self, tools: Tools) -> None:
        """All its settings are the task's."""
        self._tools = tools

    def plan(self, round_number: int) -> RoundPlan:
        """B_t ~ uniform{B_min..B_max}, and N_t ~ Geometric(b/(B_t + b)) on {1, 2, …} (Lei et al. 2017)."""
        task = self._tools.task
        b = task.mini_batch_size
        B_t = int(
            self._tools.stream(Purpose.BATCH_SIZE, round_number).integers(
                task.batch_size_min, task.batch_size_max, endpoint=True
            )
        )
        N_t = int(self._tools.stream(Purpose.INNER_STEPS, round_number).geometric(b / (B_t + b)))
        return RoundPlan(round_number, B_t, N_t)

    def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> tuple[State, InnerReport]:
        """N_t variance-reduced steps; plain policy-gradient steps without μ."""
        return variance_reduced_steps(self._tools, state, plan, mu)
