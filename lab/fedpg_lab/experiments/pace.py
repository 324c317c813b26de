"""How long an experiment will still take, judged by its runs that have ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

from fedpg_common.federation import Federation, method_of


class Pace:
    """Seconds per trajectory of runs that have ended, by what they were."""

    def __init__(self) -> None:
        """Nothing has ended yet."""
        self._seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def note(self, federation: Federation, seconds: float) -> None:
        """A run took so long, from its start to its end."""
        for kind in _kinds(federation):
            self._seconds[kind].append(seconds / federation.task.trajectories)

    def left_s(self, waiting: Iterable[Federation], at_a_time: int) -> float | None:
        """How long these will take, so many at a time; None while nothing like one of them has ended."""
        total = 0.0
        for federation in waiting:
            known = next((self._seconds[kind] for kind in _kinds(federation) if kind in self._seconds), None)
            if known is None:
                return None
            total += fmean(known) * federation.task.trajectories
        return total / max(at_a_time, 1)


def _kinds(federation: Federation) -> list[tuple[str, ...]]:
    """What a run is like others in, the most telling first: rule and attack, attack, rule, task."""
    task, rule = federation.task.name, method_of(federation)
    attack = " ".join(sorted({attack.label for attack in federation.byzantine.values()}))
    return [(task, rule, attack), (task, "", attack), (task, rule), (task,)]


def about(seconds: float) -> str:
    """A length of time as people say it: "45 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
