"""ByzPG (Jordan, Grötschla, Fan, Wattenhofer 2024): PAGE's estimates, large now and then and small differences between.

docs/algorithm.md, "ByzPG".
"""

from __future__ import annotations

from typing import ClassVar

from fedpg_common.checks import is_number, is_whole, show
from fedpg_common.learning.aggregators.base import RoundPlan
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.recursion import Kind, Recursion
from fedpg_common.learning.streams import Purpose

from fedpg_server.learning.algorithms.base import InnerReport, Tools
from fedpg_server.learning.state import ALGORITHM, State

PREVIOUS, ESTIMATE = "previous", "estimate"
"""θ_0 and μ of the last round with a μ, among the algorithm's memory."""
BATCH_MAX = 10_000
LARGE_FACTOR = 3
"""The published large batches, 50 and 96, are about so many times the batch of the task, 16 and 32."""


class ByzPG:
    """With probability p a large batch and plain gradients; otherwise the last μ and a difference on a small batch."""

    title: ClassVar[str] = "ByzPG"
    default_aggregator: ClassVar[str] = "geometric-median"

    def __init__(
        self, tools: Tools, probability: float = 0.2, large: int | None = None, small: int | None = None
    ) -> None:
        """`probability` is p, above 0 and at most 1. `large` and `small` are batches, 1 or more trajectories per agent:
        by default three times the task's batch_size, and its mini_batch_size.
        """
        if not (is_number(probability) and 0 < probability <= 1):
            raise ValueError(f"probability must be above 0 and at most 1, not {show(probability)}")
        for name, value in (("large", large), ("small", small)):
            if value is not None and not (is_whole(value) and 1 <= value <= BATCH_MAX):
                raise ValueError(f"{name} must be a whole number from 1 to {BATCH_MAX}, not {show(value)}")
        self._tools = tools
        self._probability = probability
        self._large = LARGE_FACTOR * tools.task.batch_size if large is None else large
        self._small = tools.task.mini_batch_size if small is None else small

    def plan(self, round_number: int) -> RoundPlan:
        """A large batch in the first round and with probability p, and a small one otherwise; no inner loop."""
        return RoundPlan(round_number, self._large if self._is_large(round_number) else self._small, inner_steps=0)

    def recursion(self, state: State, plan: RoundPlan) -> Recursion | None:
        """The last μ and the parameters that it was estimated at, for a small batch; None before there is one."""
        memory = state.memory(ALGORITHM)
        if ESTIMATE not in memory or self._is_large(plan.round_number):
            return None
        return Recursion(Kind.DIFFERENCE, memory[PREVIOUS], memory[ESTIMATE])

    def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> tuple[State, InnerReport]:
        """One Adam step on μ, which is remembered. Without one, θ stays, and what was remembered before still holds."""
        report = InnerReport(figures={"large-batch": float(self._is_large(plan.round_number))})
        if mu is None:
            return state, report
        stepped = self._tools.step(state, mu, report)
        if not report.steps_taken:  # float32 cannot hold it: nor is it to be what later estimates build on
            return state, report
        return stepped.with_memory(ALGORITHM, {PREVIOUS: state.theta, ESTIMATE: mu}), report

    def _is_large(self, round_number: int) -> bool:
        draw = self._tools.stream(Purpose.BATCH_SIZE, round_number).random()
        return round_number == 1 or bool(draw < self._probability)
