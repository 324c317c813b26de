"""The variance-reduced inner loop that FedPG-BR and SVRPG share."""

from __future__ import annotations

import math

import numpy as np
from fedpg_common.learning.aggregators.base import RoundPlan
from fedpg_common.learning.gradient import ordered_sum
from fedpg_common.learning.parameters import Vector

from fedpg_server.learning.algorithms.base import IMPORTANCE_RATIO_RANGE, InnerReport, Tools, Watch
from fedpg_server.learning.algorithms.compiled_steps import compiled_steps
from fedpg_server.learning.state import State


def variance_reduced_steps(
    tools: Tools,
    state: State,
    plan: RoundPlan,
    mu: Vector | None,
    *,
    learning_rate: float | None = None,
    watch: Watch | None = None,
    first_step: int = 1,
) -> tuple[State, InnerReport]:
    """N_t variance-reduced steps v = ∇L(θ_n) − ∇L_ω(θ_0) + μ, or without μ plain steps v = ∇L(θ_n).

    `learning_rate` is the task's where it is None. Who watches is told of every batch, the dropped one included.
    Steps are numbered from `first_step` on, which names their random streams. docs/algorithm.md, "Inner loop".
    """
    report = InnerReport(learning_rate=learning_rate)
    if tools.compiled_loop is not None:
        return compiled_steps(tools, tools.compiled_loop, state, plan, mu, report, watch, first_step), report
    return _one_by_one(tools, state, plan, mu, report, watch, first_step), report


def _one_by_one(
    tools: Tools,
    state: State,
    plan: RoundPlan,
    mu: Vector | None,
    report: InnerReport,
    watch: Watch | None,
    first_step: int,
) -> State:
    """The state after the steps, of which the report tells."""
    theta_0 = state.theta
    for n in range(first_step, first_step + plan.inner_steps):
        batch = tools.sample(state.theta, plan.round_number, n)
        A = tools.advantages(batch)
        current = tools.estimate(state.theta, batch, A)
        report.losses.append(current.loss)
        v = current.gradient
        if mu is not None or watch is not None:
            if state.theta is theta_0 and np.isfinite(current.log_probs).all():
                snapshot = current  # every ω is 1
            else:
                with np.errstate(over="ignore", invalid="ignore"):  # the ratio and `step` look at what comes of it
                    snapshot = tools.estimate(theta_0, batch, A, reference_log_probs=current.log_probs)
            if watch is not None:
                watch(batch, snapshot.gradient)
        if mu is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                ratio = ordered_sum(snapshot.weights) / batch.steps
                v = current.gradient - snapshot.gradient + mu
            report.importance_ratios.append(ratio)
            # Written so that a ratio that is not a number is out of range, too.
            if not IMPORTANCE_RATIO_RANGE[0] <= ratio <= IMPORTANCE_RATIO_RANGE[1]:
                report.aborted = True
                report.dropped.add(batch)
                break
        report.sampled.add(batch)
        report.gradient_norms.append(norm(v))
        state = tools.step(state, v, report)
    return state


def norm(vector: Vector) -> float:
    """Euclidean norm, in float64."""
    return math.sqrt(np.square(vector, dtype=np.float64).sum())
