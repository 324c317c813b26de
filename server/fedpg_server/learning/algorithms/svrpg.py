"""SVRPG (Papini et al. 2018), federated."""

from __future__ import annotations

from typing import ClassVar

from fedpg_common.learning.aggregators.base import RoundPlan
from fedpg_common.learning.parameters import Vector

from fedpg_server.learning.algorithms.base import InnerReport, Tools
from fedpg_server.learning.algorithms.inner_loop import variance_reduced_steps
from fedpg_server.learning.state import State


class SVRPG:
    """Batches and inner loops of fixed size, and variance-reduced steps on the mean of the gradients."""

    default_aggregator: ClassVar[str] = "mean"

    def __init__(self, tools: Tools) -> None:
        """All its settings are the task's."""
        self._tools = tools

    def plan(self, round_number: int) -> RoundPlan:
        """B and N."""
        return RoundPlan(round_number, self._tools.task.batch_size, self._tools.task.inner_steps)

    def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> tuple[State, InnerReport]:
        """N variance-reduced steps; plain policy-gradient steps without μ."""
        return variance_reduced_steps(self._tools, state, plan, mu)
