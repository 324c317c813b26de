"""What aggregators and algorithms answer, checked before it becomes part of a run.

Those that come with FedPG keep their promises; anybody's own may raise, or answer with something else. Either becomes
one sentence, and never a state that a restarted server would not have.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from fedpg_common.checks import show
from fedpg_common.errors import FedPGError, UsageError
from fedpg_common.learning.aggregators import Aggregate, RoundPlan, Votes
from fedpg_common.learning.parameters import Vector
from fedpg_common.learning.recursion import Recursion
from fedpg_common.others_code import asked, complaint, place, raise_if_ours
from numpy.typing import NDArray

from fedpg_server.learning.algorithms.base import InnerReport
from fedpg_server.learning.state import ADAM_M, ADAM_V, AGGREGATOR, ALGORITHM, THETA, State, check_memory

T = TypeVar("T")

RULE_MAX = 60
"""Characters of a rule's name."""

log = logging.getLogger(__name__)


def checked_aggregate(work: Callable[[], Aggregate], votes: Votes, name: str) -> Aggregate:
    """What an aggregator answers, as the run takes it: μ in float32, weights and figures plain, memory copied.

    A μ that is not finite counts as none. Raises UsageError, with one sentence, for anything else that is wrong.
    """
    what = f"round {votes.plan.round_number}: the aggregator {name}"
    try:
        with np.errstate(all="ignore"):
            answer: object = _asked("aggregate", f"the aggregator {name}", name, work)
        if not isinstance(answer, Aggregate):
            raise ValueError(f"it answered with {type(answer).__name__}, not with an Aggregate")
        return replace(
            answer,
            vector=_vector(answer.vector, votes),
            rule=_rule(answer.rule),
            weights=_weights(answer.weights, votes),
            figures=_figures(answer.figures),
            memory=check_memory(answer.memory, "its memory"),
            median_agent=_median_agent(answer.median_agent, votes),
        )
    except BaseException as error:  # a part that is not ours may raise anything, and end the process
        raise _failed(what, error) from error


def checked_call(work: Callable[[], T], method: str, name: str) -> T:
    """What an algorithm's `method` answers. Raises UsageError, with one sentence, if it fails."""
    try:
        return _asked(method, f"the algorithm {name}", name, work)
    except BaseException as error:  # see above
        raise _failed(f"the algorithm {name}", error) from error


def checked_plan(work: Callable[[], object], round_number: int, name: str) -> RoundPlan:
    """A round's plan as an algorithm draws it. Raises UsageError."""

    def answer() -> RoundPlan:
        plan = work()
        if not isinstance(plan, RoundPlan):
            raise ValueError(f"its plan must be a RoundPlan, not {type(plan).__name__}")
        if plan.round_number != round_number:
            raise ValueError(f"its plan of round {round_number} says that it is of round {plan.round_number}")
        return plan

    return checked_call(answer, "plan", name)


def checked_completion(work: Callable[[], object], arrived: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """What an algorithm makes of what `arrived` (k, d): as many votes, float32 and finite. Raises UsageError."""

    def answer() -> NDArray[np.float32]:
        matrix = np.asarray(work())
        if matrix.shape != arrived.shape or matrix.dtype != np.float32 or not np.isfinite(matrix).all():
            raise ValueError(f"it must complete votes to finite float32 of shape {arrived.shape}")
        return matrix.copy()

    return checked_call(answer, "complete", name)


def checked_recursion(work: Callable[[], object], size: int, name: str) -> Recursion | None:
    """What an algorithm hands out: a Recursion of finite vectors (d,) = (`size`,), or nothing. Raises UsageError."""

    def answer() -> Recursion | None:
        match work():
            case None:
                return None
            case Recursion() as recursion:
                for vector in (recursion.previous, recursion.estimate):
                    if vector is not None and not (
                        vector.shape == (size,) and vector.dtype == np.float32 and np.isfinite(vector).all()
                    ):
                        raise ValueError(f"what it hands out must be finite float32 of shape {(size,)}")
                return recursion
        raise ValueError("what it hands out must be a Recursion or None")

    return checked_call(answer, "recursion", name)


def checked_improvement(
    work: Callable[[], tuple[State, InnerReport]], before: State, name: str
) -> tuple[State, InnerReport]:
    """What an algorithm answers: a state of the same θ's size, finite, and a report. Raises UsageError."""
    try:
        answer: object = _asked("improve", f"the algorithm {name}", name, work)
        match answer:
            case (State() as state, InnerReport() as report):
                return _checked_state(state, before), replace(report, figures=_figures(report.figures))
        raise ValueError("it must answer with a State and an InnerReport")
    except BaseException as error:  # see above
        raise _failed(f"the algorithm {name}", error) from error


def _checked_state(state: State, before: State) -> State:
    """The state that an algorithm answered with, the aggregator's memory still as it was."""
    for name in (THETA, ADAM_M, ADAM_V):
        vector = state.vectors.get(name)
        if vector is None or vector.shape != before.theta.shape or vector.dtype != np.float32:
            raise ValueError(f"its state needs {name}, float32, of shape {before.theta.shape}")
        if not np.isfinite(vector).all():
            raise ValueError(f"{name} is not finite")
    core = {name: state.vectors[name] for name in (THETA, ADAM_M, ADAM_V)}
    for name, vector in state.vectors.items():
        if name not in core and not name.startswith(f"{ALGORITHM}/") and vector is not before.vectors.get(name):
            raise ValueError(f"its memory belongs below {ALGORITHM}/, not in {name}")
    own = check_memory(state.memory(ALGORITHM), "its memory")
    checked = State(core, state.steps).with_memory(ALGORITHM, own)
    return checked.with_memory(AGGREGATOR, before.memory(AGGREGATOR))


def _asked(method: str, who: str, name: str, work: Callable[[], T]) -> T:
    """What a part answers; of one that comes with FedPG, nobody needs to know where it is should it take long."""
    return asked(method, who, work) if ":" in name else work()


def _failed(what: str, error: BaseException) -> UsageError:
    """The error for what a part raised. A sentence that exists already, and what is not the part's, is raised again."""
    if isinstance(error, FedPGError):
        raise error
    raise_if_ours(error)
    log.debug("%s failed", what, exc_info=error)
    return UsageError(f"{what} failed: {complaint(error)}{place(error)}")


def _vector(vector: object, votes: Votes) -> Vector | None:
    if vector is None:
        return None
    array = np.asarray(vector)
    if array.shape != votes.matrix.shape[1:] or array.dtype.kind not in "fiu":
        raise ValueError(
            f"its vector must be numbers of shape {votes.matrix.shape[1:]}, not {array.dtype} of shape {array.shape}"
        )
    with np.errstate(over="ignore"):
        result = array.astype(np.float32)
    if np.isfinite(result).all():
        return result
    log.warning("round %d: the aggregator's vector is not finite: it counts as none", votes.plan.round_number)
    return None


def _rule(rule: object) -> str:
    if not isinstance(rule, str) or not rule.isprintable() or not 1 <= len(rule) <= RULE_MAX:
        raise ValueError(f"its rule must be a word or two, not {show(rule)}")
    return rule


def _weights(weights: object, votes: Votes) -> dict[int, float] | None:
    if weights is None:
        return None
    if not isinstance(weights, Mapping) or not set(weights) <= set(votes.agents):
        raise ValueError("its weights must be a mapping of agents that voted to numbers")
    plain = {int(agent): float(weights.get(agent, 0.0)) for agent in votes.agents}
    wrong = [weight for weight in plain.values() if not 0.0 <= weight <= 1.0]
    if wrong:
        raise ValueError(f"a weight must be from 0 to 1, not {wrong[0]}")
    return plain


def _figures(figures: object) -> dict[str, float]:
    """Those that are finite: a figure that is not, is none."""
    if not isinstance(figures, Mapping) or not all(isinstance(name, str) for name in figures):
        raise ValueError("its figures must be a mapping of names to numbers")
    plain = {name: _number(name, value) for name, value in figures.items()}
    return {name: value for name, value in plain.items() if math.isfinite(value)}


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"its figure {show(name)} must be a number, not {show(value)}") from error


def _median_agent(agent: object, votes: Votes) -> int | None:
    if agent is None:
        return None
    if agent not in votes.agents:
        raise ValueError(f"its median agent must be one that voted, not {show(agent)}")
    return int(agent)
