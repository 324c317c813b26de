"""What a run's rounds come to, kept up to date as they come: going over all of them at each look takes ever longer."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from statistics import fmean

from fedpg_server.learning.records import FINAL_FRACTION, RoundRecord


class Returns:
    """The best and the final return of the rounds so far, of which each is looked at once."""

    def __init__(self) -> None:
        """No round yet."""
        self.rounds = 0
        self.trajectories = 0
        """After the latest round."""
        self.best: float | None = None
        """As `records.best_return`."""
        self._counts: deque[int] = deque()
        self._last: deque[float] = deque()
        """Of the rounds that count for the final return: trajectories so far, and the return, a finite number."""

    def add(self, trajectories: int, value: float) -> None:
        """One more round: trajectories after it, and its evaluation return."""
        self.rounds += 1
        self.trajectories = trajectories
        if math.isfinite(value):
            self.best = value if self.best is None else max(self.best, value)
            self._counts.append(trajectories)
            self._last.append(value)
        while self._counts and self._counts[0] <= trajectories * (1 - FINAL_FRACTION):
            self._counts.popleft()
            self._last.popleft()

    @property
    def final(self) -> float | None:
        """As `records.final_return`, if the run ended here."""
        return fmean(self._last) if self._last else None


class Totals:
    """Returns, steps and rules of the rounds so far, of which each is looked at once."""

    def __init__(self, records: Iterable[RoundRecord] = ()) -> None:
        """Start with these rounds."""
        self.returns = Returns()
        self.environment_steps = 0
        self.rules: Counter[str] = Counter()
        """How many rounds each rule has decided."""
        for record in records:
            self.add(record)

    def add(self, record: RoundRecord) -> None:
        """One more round."""
        self.returns.add(record.trajectories_total, record.evaluation_return)
        self.environment_steps += sum(record.environment_steps.values())
        self.rules[record.rule] += 1
