"""How far an agent gets before a round's deadline: judged by the time that its trajectories have taken so far.

Nothing that has been sampled is thrown away, and no trajectory is given up because it takes long: that would leave the
short ones. What is decided, before each further chunk, is whether to begin it.
"""

from __future__ import annotations

from collections.abc import Callable

RESERVE = 0.1
"""Part of the time left that is kept for what comes after sampling, before the agent knows how long that takes."""
CAUTION = 1.5
"""A chunk may take so many times as long as the slowest before, and submitting as in the round before."""


class Budget:
    """The time that an agent has for sampling in one round."""

    def __init__(self, clock: Callable[[], float], until_s: float) -> None:
        """`clock` gives seconds; `until_s` is when sampling has to be over, by that clock."""
        self._clock = clock
        self._until_s = until_s
        self._slowest_s = 0.0
        self.sampled_s = clock()
        """When the latest chunk was complete; before the first, when sampling began."""

    def allows(self, sampled: int, following: int) -> bool:
        """Whether, after a chunk of `sampled` trajectories, one of `following` will be complete in time."""
        now_s = self._clock()
        self._slowest_s = max(self._slowest_s, (now_s - self.sampled_s) / sampled)
        self.sampled_s = now_s
        return now_s + CAUTION * self._slowest_s * following <= self._until_s


class Pace:
    """What an agent knows of its own speed, from round to round."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._after_s: float | None = None

    def budget(self, arrived_s: float, time_left_s: float) -> Budget:
        """The budget of a round that arrived at `arrived_s` with `time_left_s` until its deadline."""
        reserve_s = RESERVE * time_left_s if self._after_s is None else CAUTION * self._after_s
        return Budget(self._clock, arrived_s + time_left_s - reserve_s)

    def submitted(self, budget: Budget) -> None:
        """The round's gradient has been submitted: learn how long it took from the last trajectory to here."""
        self._after_s = self._clock() - budget.sampled_s
