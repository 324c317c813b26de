"""What the server knows of its policies' returns: whether they are steady, and whether a new policy is worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from fedpg_common.learning.parameters import Vector
from numpy.typing import NDArray

from fedpg_server.learning.algorithms.defence.memory import Memory, from_count, numbers_in, to_count, to_vector
from fedpg_server.learning.state import ADAM_M, ADAM_V, THETA, State

WINDOW = 10
"""Accepted rounds by which returns are judged."""
LATE = 3
"""Accepted rounds by which a slow fall is noticed."""
KEPT = 3 * WINDOW
MARGIN = 0.05
"""The part of the progress so far that counts as nothing."""
WIDTH = 3.0
SAG_WIDTH = 2.0
NORMAL = 1.4826
"""The standard deviation of a normal distribution in median absolute deviations."""
LOST = 0.5
"""The part of the progress that must be lost for good before an unsteady run is taken back."""
GREEDY, SAMPLED, MARKS = "returns/greedy", "returns/sampled", "returns/marks"
BEST, BEST_STEPS = "returns/best", "returns/best-steps"
CORE = (THETA, ADAM_M, ADAM_V)


@dataclass(frozen=True)
class Marks:
    """Single numbers."""

    first: float = 0.0
    """Mean greedy return of the first round."""
    first_sampled: float = 0.0
    best: float = 0.0
    """The highest level so far: `Returns.level`."""
    best_sampled: float = 0.0
    """The level of the sampled returns at that time."""
    is_armed: bool = False
    rejections: float = 0.0
    """In a row."""


@dataclass(frozen=True)
class Returns:
    """The returns of the accepted rounds, and the state that was best. Changes make a new one.

    Greedy returns are those of the server's own episodes, which nobody knows beforehand; sampled returns those of its
    inner batches, whose actions are drawn.
    """

    greedy: tuple[float, ...] = ()
    sampled: tuple[float, ...] = ()
    marks: Marks = field(default_factory=Marks)
    best: State | None = None
    """θ and Adam's moments of the last round with the highest level whose own return was no lower than that."""
    is_climbing: bool = False
    """Whether the server's own gradients confirm that μ leads uphill. It is told anew in each round."""

    @property
    def level(self) -> float:
        """The median of the last ten accepted rounds' mean greedy returns."""
        return _level(self.greedy)

    @property
    def usual(self) -> float:
        """The usual change from one round to the next: a standard deviation, robustly."""
        return NORMAL * float(np.median(np.abs(np.diff(self.greedy[-WINDOW:]))))

    @property
    def is_steady(self) -> bool:
        """Whether ten rounds are there and returns usually change by no more than 5 % of the progress."""
        if len(self.greedy) < WINDOW:
            return False
        return self.usual <= MARGIN * max(self.level - self.marks.first, 0.0)

    @property
    def is_sagging(self) -> bool:
        """Whether, where returns are steady, the last three lie below the best level by more than the margin."""
        if self.is_climbing or not (self.marks.is_armed and self.is_steady):
            return False
        slack = max(SAG_WIDTH * self.usual, MARGIN * max(self.marks.best - self.marks.first, 0.0))
        return float(np.median(self.greedy[-LATE:])) < self.marks.best - slack

    @property
    def is_fallen(self) -> bool:
        """Whether half of the progress is lost over ten rounds, in greedy and in sampled returns."""
        marks = self.marks
        return (
            marks.is_armed
            and _is_half_lost(self.level, marks.best, marks.first)
            and _is_half_lost(_level(self.sampled), marks.best_sampled, marks.first_sampled)
        )

    def approves(self, returns: NDArray[np.float64]) -> bool:
        """Whether a policy with these greedy returns (n,) is no worse than was usual.

        Always, until armed; and while the sampled returns, which are what is learnt from, are known to rise.
        """
        if self.is_climbing or not self.marks.is_armed:
            return True
        slack = max(WIDTH * self.usual, MARGIN * max(self.level - self.marks.first, 0.0))
        if not self.is_steady:
            slack = max(slack, WIDTH * float(returns.std(ddof=1)) / math.sqrt(len(returns)))
        return bool(returns.mean() >= self.level - slack)

    def accept(self, greedy: float, sampled: float, state: State) -> Returns:
        """With one more accepted round. Steady returns above the first one arm the guard."""
        marks = replace(self.marks, rejections=0.0)
        if not self.greedy:
            marks = replace(marks, first=greedy, first_sampled=sampled)
        after = replace(
            self, greedy=(*self.greedy, greedy)[-KEPT:], sampled=(*self.sampled, sampled)[-KEPT:], marks=marks
        )
        is_armed = marks.is_armed or (after.is_steady and after.level > marks.first)
        marks = replace(marks, is_armed=is_armed)
        if self.best is not None and after.level < marks.best and not self.is_climbing:
            return replace(after, marks=marks)
        marks = replace(marks, best=after.level, best_sampled=_level(after.sampled))
        # A median outlasts the first rounds of a fall: a policy that fell must not pass for the best one.
        is_earned = self.best is None or greedy >= after.level
        return replace(after, marks=marks, best=state if is_earned else self.best)

    def reject(self) -> Returns:
        """With one more rejected round."""
        return replace(self, marks=replace(self.marks, rejections=self.marks.rejections + 1))

    def forgive(self) -> Returns:
        """After a return to the best state: no rejections in a row."""
        return replace(self, marks=replace(self.marks, rejections=0.0))

    def taken_back(self, rounds: int) -> Returns:
        """As if the last `rounds` had been one with the best state."""
        greedy, sampled = self.greedy[:-rounds], self.sampled[:-rounds]
        return replace(self, greedy=(*greedy, self.marks.best), sampled=(*sampled, self.marks.best_sampled))

    def to_memory(self) -> dict[str, Vector]:
        """As named vectors."""
        marks = self.marks
        numbers = [marks.first, marks.first_sampled, marks.best, marks.best_sampled, marks.is_armed, marks.rejections]
        memory = {GREEDY: to_vector(self.greedy), SAMPLED: to_vector(self.sampled), MARKS: to_vector(numbers)}
        if self.best is not None:
            memory.update({f"{BEST}/{name}": self.best.vectors[name] for name in CORE})
            memory[BEST_STEPS] = to_vector(from_count(self.best.steps))
        return memory

    @classmethod
    def from_memory(cls, memory: Memory) -> Returns:
        """The inverse of `to_memory`; without one, what there is before round 1."""
        if MARKS not in memory:
            return cls()
        first, first_sampled, top, top_sampled, is_armed, rejections = numbers_in(memory, MARKS, 6)
        best = None
        if BEST_STEPS in memory:
            core = {name: memory[f"{BEST}/{name}"] for name in CORE}
            best = State(core, to_count(*numbers_in(memory, BEST_STEPS, 2)))
        return cls(
            tuple(numbers_in(memory, GREEDY, 0)),
            tuple(numbers_in(memory, SAMPLED, 0)),
            Marks(first, first_sampled, top, top_sampled, bool(is_armed), rejections),
            best,
        )


def _level(values: Sequence[float]) -> float:
    return float(np.median(values[-WINDOW:]))


def _is_half_lost(now: float, best: float, first: float) -> bool:
    return best > first and now < best - LOST * (best - first)
