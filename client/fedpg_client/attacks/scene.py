"""A round as attackers see it that know the other agents' gradients, and how they try a vector on the server's rule.

The rule is public, and attackers run it themselves. They do not know what the server samples: it is tried with the
honest mean for the server's own gradient, and without inner steps. What it remembers of earlier rounds they know if
they have followed it (`following`); otherwise it is tried on an empty memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from fedpg_common.choices import Choice
from fedpg_common.errors import FedPGError, UsageError
from fedpg_common.learning.aggregators import Aggregate, Aggregator, Memory, RoundPlan, Tryable, Votes, build_aggregator
from fedpg_common.learning.parameters import Vector
from fedpg_common.others_code import place, raise_if_ours, reason
from numpy.typing import NDArray

from fedpg_client.attacks.base import Attack, Context, Knowledge, to_finite_float32

Array = NDArray[np.float64]

UNKNOWN_RULE = Choice("fedpg")
"""The rule that an attacker assumes who was not told."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What everybody would submit if all were honest, and the server's rule."""

    gradients: NDArray[np.float32]
    """A row per agent, 1 to K: (K, d)."""
    attackers: tuple[int, ...]
    """Their rows, ascending."""
    context: Context
    rule: Aggregator
    _foreseen: dict[tuple[tuple[int, ...], bytes], Aggregate] = field(default_factory=dict, init=False)
    """What the rule makes of vectors that were tried together, by who submits them and their float32 bytes."""

    @cached_property
    def honest(self) -> Array:
        """The rows of the other agents, (K − B, d); of all, if all attack."""
        others = [row for row in range(len(self.gradients)) if row not in self.attackers]
        return self.gradients[others or slice(None)].astype(np.float64)

    @cached_property
    def mean(self) -> Array:
        """The honest mean, (d,)."""
        return np.asarray(self.honest.mean(axis=0))

    @cached_property
    def deviations(self) -> Array:
        """The honest standard deviation of each coordinate (n − 1 in the denominator), (d,); 0 for a lone agent."""
        return self.honest.std(axis=0, ddof=1) if len(self.honest) > 1 else np.zeros_like(self.mean)

    @cached_property
    def spread(self) -> float:
        """Root of the honest variance summed over coordinates; the mean's norm where there is none."""
        return length(self.deviations) or length(self.mean)

    def aggregate(self, vector: Array | None, pushers: tuple[int, ...] | None = None) -> Aggregate:
        """What the rule makes of the round if the rows `pushers`, by default all attackers, submit the vector (d,).

        With None, all are honest. Raises UsageError if the rule cannot be run.
        """
        rows = self.attackers if pushers is None else pushers
        matrix = self.gradients
        if vector is not None:
            submitted = to_finite_float32(vector)
            foreseen = self._foreseen.get((rows, submitted.tobytes())) if self._foreseen else None
            if foreseen is not None:
                return foreseen
            matrix = matrix.copy()
            matrix[list(rows)] = submitted
        with _one_sentence():
            return self.rule.aggregate(self._votes(matrix), self.context.rule_memory)

    def memory_after(self, vector: Array | Vector | None) -> Memory:
        """What the rule remembers behind this round, if all attackers submit the vector (d,).

        With None, all are honest. Raises UsageError if the rule cannot be run.
        """
        matrix = self.gradients
        if vector is not None:
            matrix = matrix.copy()
            matrix[list(self.attackers)] = vector
        with _one_sentence():
            return self.rule.aggregate(self._votes(matrix), self.context.rule_memory).memory

    def foresee(self, vectors: Iterable[Array], pushers: tuple[int, ...] | None = None) -> None:
        """Try vectors (d,) together of which `aggregate` may be asked: faster, where the rule knows how."""
        if not isinstance(self.rule, Tryable) or self.context.rule_memory:  # that is for an empty memory
            return
        rows = self.attackers if pushers is None else pushers
        submitted = {vector.tobytes(): vector for vector in map(to_finite_float32, vectors)}
        new = [key for key in submitted if (rows, key) not in self._foreseen]
        if not new:
            return
        with _one_sentence():
            answers = self.rule.try_each(self._votes(self.gradients), rows, np.stack([submitted[key] for key in new]))
        for key, answer in zip(new, answers or (), strict=False):
            if answer is not None:
                self._foreseen[rows, key] = answer

    def _votes(self, gradients: NDArray[np.float32]) -> Votes:
        """The votes of a round in which agents submit these (K, d)."""
        matrix = gradients.view()
        matrix.flags.writeable = False
        return Votes(
            agents=tuple(range(1, len(matrix) + 1)),
            matrix=matrix,
            federation_size=len(matrix),
            plan=RoundPlan(self.context.round_number, self.context.batch_size, inner_steps=0),
            task=self.context.task,
            server_gradient=to_finite_float32(self.mean),
        )


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Raise UsageError for whatever a rule raises that may be somebody's own."""
    try:
        yield
    except FedPGError:
        raise
    except BaseException as error:
        raise_if_ours(error)
        what = f"{reason(error)}{place(error)}"
        raise UsageError(f"the server's aggregator cannot be tried by an attacker: {what}") from error


def scene_of(pooled: Mapping[int, Vector], context: Context) -> Scene:
    """The round with these gradients of attackers, and those of the other agents in `context.honest`.

    Whoever is in neither is taken for one of the attackers in turn: what attackers know who know only their own.
    """
    own = list(pooled.values())
    rows, guesses = [], 0
    for agent in range(1, context.agents + 1):
        row = pooled.get(agent, context.honest.get(agent))
        if row is None:
            row = own[guesses % len(own)]
            guesses += 1
        rows.append(row)
    attackers = tuple(agent - 1 for agent in sorted(context.attackers))
    return Scene(
        np.stack(rows).astype(np.float32), attackers, context, build_aggregator(context.aggregator or UNKNOWN_RULE)
    )


class SceneAttack(Attack):
    """An attack by what it makes of a scene; all attackers submit the same vector unless it says otherwise."""

    knowledge: ClassVar[Knowledge] = Knowledge.OMNISCIENT
    searches: ClassVar[bool] = True
    unanimous: ClassVar[bool] = True

    def craft(self, scene: Scene) -> Array:
        """The vector (d,) that the attackers submit."""
        raise NotImplementedError

    def collude(self, pooled: Mapping[int, Vector], context: Context) -> Vector:
        """See `Attack`."""
        return to_finite_float32(self.craft(scene_of(pooled, context)))


def length(vector: Array) -> float:
    """The Euclidean norm of (d,)."""
    return float(np.sqrt(np.square(vector).sum()))


def unit(vector: Array) -> Array:
    """The vector (d,) with length 1; zeros stay zeros."""
    size = length(vector)
    return vector / size if size > 0 else np.zeros_like(vector)
