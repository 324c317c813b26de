"""The inner loop's steps in one compiled call, for the tasks whose episodes, policy and gradient are compiled.

The same bits as `inner_loop.variance_reduced_steps` takes them one by one, which a test holds.
"""

from __future__ import annotations

import numpy as np
from fedpg_common.learning.aggregators.base import RoundPlan
from fedpg_common.learning.kernels.inner_loop import STEPS_AT_ONCE, Batches, CompiledLoop
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.streams import Purpose, Role, stream_words
from fedpg_common.learning.trajectories import Trajectories

from fedpg_server.learning.algorithms.adam import rates_of
from fedpg_server.learning.algorithms.base import InnerReport, Tools, Watch
from fedpg_server.learning.state import ADAM_M, ADAM_V, THETA, State


def compiled_steps(
    tools: Tools,
    loop: CompiledLoop,
    state: State,
    plan: RoundPlan,
    mu: Vector | None,
    report: InnerReport,
    watch: Watch | None,
    first_step: int,
) -> State:
    """The state after N_t steps, of which the report tells; see `inner_loop.variance_reduced_steps`."""
    loop.theta_0[:] = loop.theta[:] = state.theta
    loop.m[:], loop.v[:] = state.vectors[ADAM_M], state.vectors[ADAM_V]
    if mu is not None:
        loop.mu[:] = mu
    rate = tools.task.learning_rate if report.learning_rate is None else report.learning_rate
    taken, step, end = 0, first_step, first_step + plan.inner_steps
    at_once = STEPS_AT_ONCE if watch is None else 1  # who watches sees one batch after the other
    while step < end and not report.aborted:
        count = min(at_once, end - step)
        loop.words[:count] = _words(tools.seed, plan.round_number, step, count)
        loop.rates[:count], loop.corrections[:count] = rates_of(state.steps + taken, count, rate)
        batches = loop.run(count, has_mu=mu is not None, has_moved=taken > 0, wants_snapshot=watch is not None)
        if watch is not None:
            watch(_trajectories(tools, loop, batches.rows[0]), loop.snapshot.copy())
        taken += sum(batches.was_taken)
        _tell(report, batches, tools.task.mini_batch_size, has_mu=mu is not None)
        step += count
    if not taken:
        return state
    vectors = {THETA: loop.theta.copy(), ADAM_M: loop.m.copy(), ADAM_V: loop.v.copy()}
    return state.with_vectors(vectors, state.steps + taken)


def _words(seed: int, round_number: int, first: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    """The names of the streams of `count` steps, hashed, shape (count, 2, 8): for episodes, for actions."""
    names = b"".join(
        stream_words(seed, Role.SERVER, purpose, round_number=round_number, step=step)
        for step in range(first, first + count)
        for purpose in (Purpose.ENVIRONMENT, Purpose.ACTION)
    )
    return np.frombuffer(names, "<u4").reshape(count, 2, -1)


def _trajectories(tools: Tools, loop: CompiledLoop, rows: int) -> Trajectories:
    observations, actions, episodes = loop.last_batch(rows)
    return Trajectories(observations, actions, np.ones(rows), episodes, count=tools.task.mini_batch_size)


def _tell(report: InnerReport, batches: Batches, batch_size: int, has_mu: bool) -> None:
    report.losses += batches.losses
    if has_mu:
        report.importance_ratios += batches.ratios
    report.aborted = batches.is_aborted
    stepped = len(batches.rows) - batches.is_aborted
    for rows in batches.rows[:stepped]:
        report.sampled.trajectories += batch_size
        report.sampled.steps += rows
    for rows in batches.rows[stepped:]:
        report.dropped.trajectories += batch_size
        report.dropped.steps += rows
    report.steps_taken += sum(batches.was_taken)
    report.skipped_steps += stepped - sum(batches.was_taken)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.square(batches.directions[:stepped], dtype=np.float64)
        report.gradient_norms += np.sqrt(np.add.reduce(squares, axis=1)).tolist()
