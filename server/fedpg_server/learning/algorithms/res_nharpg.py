"""Res-NHARPG (Ganesh, Chen, Thoppe, Aggarwal 2024): agents' momentum, corrected by the Hessian, and normalised steps.

docs/algorithm.md, "Res-NHARPG".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from fedpg_common.checks import is_number, is_whole, show
from fedpg_common.learning.aggregators.base import Aggregate, RoundPlan, Votes
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.recursion import Kind, Recursion
from numpy.typing import NDArray

from fedpg_server.learning.algorithms.base import InnerReport, Tools
from fedpg_server.learning.algorithms.inner_loop import norm
from fedpg_server.learning.state import ALGORITHM, THETA, State

PREVIOUS = "previous"
"""θ_0 of the last round in which somebody voted, among the algorithm's memory."""
MOMENTUM = "momentum"
"""momentum/k is what agent k's momentum was in that round."""
STEP_MAX = 1e3
BATCH_MAX = 10_000


class ResNHARPG:
    """d⁽ᵏ⁾ = (1 − η)(d⁽ᵏ⁾ of the round before + v⁽ᵏ⁾) + η g⁽ᵏ⁾, aggregated robustly, and a step in that direction.

    The agents' momentum is kept here: an agent submits η g + (1 − η) v, and needs to remember nothing.
    """

    title: ClassVar[str] = "Res-NHARPG"
    default_aggregator: ClassVar[str] = "trimmed-mean"

    def __init__(
        self, tools: Tools, eta: float = 0.5, decaying: bool = False, step: float | None = None, batch: int = 2
    ) -> None:
        """`eta` is η, above 0 and at most 1; `decaying` puts the theory's 2/(t + 2) in its place, in round t.

        `step` is the length of a step along −μ/‖μ‖; by default Adam takes that vector for a gradient, with the task's
        learning rate, as the code published with the paper does. `batch` is B, trajectories per agent, 2 or more.
        """
        if not (is_number(eta) and 0 < eta <= 1):
            raise ValueError(f"eta must be above 0 and at most 1, not {show(eta)}")
        if not isinstance(decaying, bool):
            raise ValueError(f"decaying must be true or false, not {show(decaying)}")
        if step is not None and not (is_number(step) and 0 < step <= STEP_MAX):
            raise ValueError(f"step must be above 0 and at most {STEP_MAX:g}, not {show(step)}")
        if not (is_whole(batch) and 2 <= batch <= BATCH_MAX):
            raise ValueError(f"batch must be a whole number from 2 to {BATCH_MAX}, not {show(batch)}")
        self._tools = tools
        self._eta = None if decaying else float(eta)
        self._step = step
        self._batch = batch

    def plan(self, round_number: int) -> RoundPlan:
        """B, and no inner loop."""
        return RoundPlan(round_number, self._batch, inner_steps=0)

    def recursion(self, state: State, plan: RoundPlan) -> Recursion | None:
        """The parameters of the round before, and η. None before anybody has a momentum: then d = g."""
        previous = state.memory(ALGORITHM).get(PREVIOUS)
        return None if previous is None else Recursion(Kind.MOMENTUM, previous, weight=self._weight(plan))

    def complete(
        self, state: State, plan: RoundPlan, agents: Sequence[int], matrix: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """d⁽ᵏ⁾ of each agent, (k, d): (1 − η) times its momentum, and what it has sent.

        Who did not vote in the round before goes on from the coordinate-wise median of the momenta of those who did.
        """
        memory = state.memory(ALGORITHM)
        if PREVIOUS not in memory:
            return matrix
        momenta = {name: vector for name, vector in memory.items() if name != PREVIOUS}
        middle = np.median(np.stack(list(momenta.values())).astype(np.float64), axis=0)
        kept = np.stack([momenta.get(f"{MOMENTUM}/{agent}", middle) for agent in agents]) if agents else matrix
        largest = np.finfo(np.float32).max
        completed = (1.0 - self._weight(plan)) * kept.astype(np.float64) + matrix
        result: NDArray[np.float32] = np.clip(completed, -largest, largest).astype(np.float32)
        return result

    def improve(self, state: State, plan: RoundPlan, mu: Vector | None) -> tuple[State, InnerReport]:
        """A round in which nothing is known of the votes but their μ."""
        votes = Votes((), np.zeros((0, state.theta.size), np.float32), self._tools.agents, plan, self._tools.task)
        return self.improve_seeing(state, plan, votes, Aggregate(mu, rule="given"))

    def improve_seeing(
        self, state: State, plan: RoundPlan, votes: Votes, aggregate: Aggregate
    ) -> tuple[State, InnerReport]:
        """One step along −μ/‖μ‖; without μ, θ stays. The momenta of those who voted are remembered."""
        report = InnerReport(figures={"eta": self._weight(plan)})
        after = state
        if aggregate.vector is not None and np.any(aggregate.vector):
            direction = aggregate.vector.astype(np.float64) / norm(aggregate.vector)
            after = self._moved(state, direction.astype(np.float32), report)
        if not votes.agents:
            return after, report
        momenta = {f"{MOMENTUM}/{agent}": row for agent, row in zip(votes.agents, votes.matrix, strict=True)}
        return after.with_memory(ALGORITHM, {PREVIOUS: state.theta, **momenta}), report

    def _moved(self, state: State, direction: Vector, report: InnerReport) -> State:
        if self._step is None:
            return self._tools.step(state, direction, report)
        report.learning_rate = float(self._step)
        theta = state.theta - np.float32(self._step) * direction  # finite, as θ is: so short a step is lost beside 1e38
        report.steps_taken += 1
        return state.with_vectors({THETA: theta}, state.steps + 1)

    def _weight(self, plan: RoundPlan) -> float:
        return 2.0 / (plan.round_number + 2.0) if self._eta is None else self._eta
