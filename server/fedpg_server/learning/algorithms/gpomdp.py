"""GPOMDP (Baxter & Bartlett 2001), federated."""

from __future__ import annotations

from typing import ClassVar

from fedpg_common.learning.aggregators.base import RoundPlan
from fedpg_common.learning.parameters import Vector

from fedpg_server.learning.algorithms.base import InnerReport, Tools
from fedpg_server.learning.state import State


class GPOMDP:
    """Batches of fixed size and one step on the mean of the gradients."""

    default_aggregator: ClassVar[str] = "mean"

    def __init__(self, tools: Tools) -> None:
        """All its settings are the task's."""
        self._tools = tools

    def plan(self, round_number: int) -> RoundPlan:
        """B, and no inner loop."""
        return RoundPlan(round_number, self._tools.task.batch_size, inner_steps=0)

    def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> tuple[State, InnerReport]:
        """One Adam step on μ; without μ, θ stays where it is for the round."""
        report = InnerReport()
        return (state if mu is None else self._tools.step(state, mu, report)), report
