"""Aggregators from what a description says of them: those named in `after` run first, in that order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedpg_common.checks import is_whole, show
from fedpg_common.choices import Choice
from fedpg_common.errors import FedPGError, UsageError
from fedpg_common.learning.aggregators.base import (
    Aggregate,
    Aggregator,
    Memory,
    Mixed,
    PreAggregator,
    Remembering,
    RoundPlan,
    Selective,
    Votes,
)
from fedpg_common.learning.aggregators.weighting import WEIGHING
from fedpg_common.learning.parameters import Vector
from fedpg_common.others_code import asked, is_ours, place, raise_if_ours, reason
from fedpg_common.shipped import AGGREGATORS, PRE_AGGREGATORS
from fedpg_common.tasks import Task

T = TypeVar("T")

BEFORE = "before/"
"""What the memory of pre-aggregators is called after, each with its place in `after`."""


def build_aggregator(choice: Choice) -> Aggregator:
    """The aggregator of a description, with the pre-aggregators of its setting `after`. Raises UsageError."""
    _check_weighting(choice)
    settings = {name: value for name, value in choice.settings.items() if name != "after"}
    aggregator: Aggregator = AGGREGATORS.build(Choice(choice.name, settings))
    _require_method(aggregator, "aggregate", f"aggregator {choice.name}")
    befores: list[PreAggregator] = []
    for part in parts_before(choice):
        befores.append(PRE_AGGREGATORS.build(part))
        _require_method(befores[-1], "mix", f"pre-aggregator {part.name}")
    return After(aggregator, befores) if befores else aggregator


def check_federation(
    aggregator: Aggregator, choice: Choice, task: Task, agents: int, has_server_gradient: bool
) -> None:
    """Raise UsageError where an aggregator cannot serve a federation of this many agents on this task."""
    _check_faulty(choice, AGGREGATORS.shipped, agents)
    for before in parts_before(choice):
        _check_faulty(before, PRE_AGGREGATORS.shipped, agents)
    if not isinstance(aggregator, Selective):
        return
    plan = RoundPlan(round_number=1, batch_size=task.batch_size, inner_steps=0)
    matrix = np.zeros((agents, 1), np.float32)
    matrix.flags.writeable = False
    own = np.zeros(1, np.float32) if has_server_gradient else None
    try:
        aggregator.check_federation(Votes(tuple(range(1, agents + 1)), matrix, agents, plan, task, own))
    except ValueError as error:
        raise UsageError(f"aggregator {choice.name}: {' '.join(str(error).split())}") from error
    except FedPGError:
        raise
    except BaseException as error:
        if not choice.modules:
            raise
        raise_if_ours(error)
        raise UsageError(
            f"aggregator {choice.name} failed in check_federation: {reason(error)}{place(error)}"
        ) from error


def _check_faulty(part: Choice, shipped: Mapping[str, str], agents: int) -> None:
    """Raise UsageError for a number of faulty agents that no rule withstands; what others call so is their own."""
    faulty = part.settings.get("faulty")
    if part.name in shipped and is_whole(faulty) and 2 * faulty >= agents > 1:
        raise UsageError(f"aggregator {part.name}: faulty must be less than half of the {agents} agents, not {faulty}")


def _check_weighting(choice: Choice) -> None:
    """Raise UsageError where votes are to be weighed by a rule that must not; what others call so is their own."""
    if "weighting" not in choice.settings or choice.name not in AGGREGATORS.shipped:
        return
    if choice.name not in WEIGHING:
        raise UsageError(
            f"aggregator {choice.name}: what it promises counts agents, so it does not weigh votes by trajectories; "
            f"{' and '.join(WEIGHING)} do"
        )
    if choice.settings["weighting"] == "trajectories" and parts_before(choice):
        raise UsageError(
            f"aggregator {choice.name}: agents' votes can be weighed, but not what pre-aggregators make of them: leave "
            "out weighting, or after"
        )


def parts_before(choice: Choice) -> list[Choice]:
    """The pre-aggregators that a description names in an aggregator's setting `after`. Raises UsageError."""
    after = choice.settings.get("after", [])
    if not isinstance(after, list | tuple):
        raise UsageError(f"aggregator {choice.name}: after must be a list of pre-aggregators, not {show(after)}")
    return [PRE_AGGREGATORS.parse(part) for part in after]


def _require_method(part: object, method: str, what: str) -> None:
    if not callable(getattr(part, method, None)):
        mixes = method == "aggregate" and callable(getattr(part, "mix", None))
        hint = "; it has 'mix', as what stands in an aggregator's setting after" if mixes else ""
        raise UsageError(f"{what} has no method {method!r}{hint}")


class After:
    """An aggregator that is given mixed votes in place of the agents' own."""

    def __init__(self, aggregator: Aggregator, befores: Sequence[PreAggregator]) -> None:
        """The `befores` are run in their order, each on what the one before it has made."""
        self._aggregator = aggregator
        self._befores = tuple(befores)
        parts = (aggregator, *befores)
        # What `fedpg check` may hold it to is what all its parts claim.
        self.symmetric = all(getattr(part, "symmetric", True) for part in parts)
        self.resists = all(getattr(part, "resists", True) for part in parts)
        claims = [set(getattr(part, "equivariant", ())) for part in parts]
        self.equivariant = tuple(sorted(set.intersection(*claims)))
        self.unanimous = all(getattr(part, "unanimous", True) for part in parts)
        trusting = [part for part in parts if getattr(part, "needs_reference", False)]
        self.needs_reference = bool(trusting)
        batches = [getattr(part, "reference_batch", None) for part in trusting]
        # The largest of the stated ones serves all; without any, it is B_t.
        self.reference_batch = max((batch for batch in batches if batch is not None), default=None)

    def check_federation(self, votes: Votes) -> None:
        """Ask the aggregator, if it may refuse, about as many rows as the pre-aggregators leave."""
        if isinstance(self._aggregator, Selective):
            for before in self._befores:
                votes = _as_votes(before.mix(votes), votes)
            self._aggregator.check_federation(votes)

    def aggregate(self, votes: Votes, memory: Memory) -> Aggregate:
        """Mix, aggregate, and say of the rows' weights what they mean for the agents."""
        rows, shares = votes, np.eye(len(votes.agents))
        figures: dict[str, float] = {}
        own = {name: vector for name, vector in memory.items() if not name.startswith(BEFORE)}
        kept: dict[str, Vector] = {}
        for position, before in enumerate(self._befores, start=1):
            if isinstance(before, Remembering):
                prefix = f"{BEFORE}{position}/"
                past = {name[len(prefix) :]: memory[name] for name in memory if name.startswith(prefix)}
                mixed, remembered = _mixing(before, partial(before.mix_remembering, rows, past))
                kept.update({f"{prefix}{name}": vector for name, vector in remembered.items()})
            else:
                mixed = _mixing(before, partial(before.mix, rows))
            _check_mixed(mixed, rows)
            figures.update(mixed.figures)
            shares = mixed.shares @ shares
            rows = _as_votes(mixed, rows)
        result = self._aggregator.aggregate(rows, own)
        return Aggregate(
            vector=result.vector,
            rule=result.rule,
            weights=None if result.weights is None else _weights_of_agents(result, rows, shares, votes),
            figures={**figures, **result.figures},
            memory={**result.memory, **kept},
            # The row that the rule measured from is a mixture, not an agent's vote.
            median_agent=None,
        )


def _mixing(before: PreAggregator, mix: Callable[[], T]) -> T:
    """What a pre-aggregator answers."""
    kind = type(before)
    return mix() if is_ours(kind.__module__) else asked("mix", f"the pre-aggregator {kind.__name__}", mix)


def _check_mixed(mixed: Mixed, votes: Votes) -> None:
    rows, size = mixed.matrix.shape
    if not 1 <= rows <= len(votes.agents) or size != votes.matrix.shape[1]:
        raise ValueError(
            f"mixing {votes.matrix.shape} made {mixed.matrix.shape}: at most as many rows, of equal length"
        )
    if mixed.shares.shape != (rows, len(votes.agents)):
        raise ValueError(f"the shares must have shape {(rows, len(votes.agents))}, not {mixed.shares.shape}")


def _as_votes(mixed: Mixed, votes: Votes) -> Votes:
    """Rows as votes 1, 2, …: of a federation that shrank as the rows did, and that tolerates what it did before."""
    rows, K = len(mixed.matrix), votes.federation_size
    # −(−a // b) rounds up: a row that is absent holds at least one agent that is.
    size = -(-K * rows // len(votes.agents))
    matrix = np.ascontiguousarray(mixed.matrix, np.float32)
    matrix.flags.writeable = False
    return Votes(
        agents=tuple(range(1, rows + 1)),
        matrix=matrix,
        federation_size=size,
        plan=votes.plan,
        task=votes.task,
        server_gradient=votes.server_gradient,
        server_scale=votes.server_scale,
        tolerated=votes.faulty,
        batch_sizes=None if votes.batch_sizes is None else _mixed_sizes(mixed.shares, votes.batch_sizes),
    )


def _mixed_sizes(shares: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """B of rows that hold these shares (rows, k) of votes of B_k: an error of at most Σ s_k e_k, e_k ∝ 1/√B_k."""
    errors = shares @ (1.0 / np.sqrt(sizes))
    result: NDArray[np.float64] = 1.0 / np.square(np.maximum(errors, 1e-12))
    return result


def _weights_of_agents(result: Aggregate, rows: Votes, shares: NDArray[np.float64], votes: Votes) -> dict[int, float]:
    """How much each agent's vote counted, as a part of the one that counted most."""
    assert result.weights is not None
    of_rows = np.array([result.weights.get(row, 0.0) for row in rows.agents])
    counted = of_rows @ shares
    most = float(counted.max())
    scaled = counted / most if most > 0 else counted
    return dict(zip(votes.agents, scaled.tolist(), strict=True))
