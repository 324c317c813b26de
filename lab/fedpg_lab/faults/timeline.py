"""When faults begin and are healed: pure, from what is observed of the run, without a clock of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fedpg_lab.faults.backend import SERVER, Fault, FaultKind

INSTANT = frozenset({FaultKind.RESTART})
"""Faults that are over at once: there is nothing to heal."""


@dataclass(frozen=True)
class PlannedFault:
    """A fault with its place in time. It begins `after_s` after round `at_round` was first seen open."""

    number: int
    """From 1, in the scenario's order."""
    fault: Fault
    label: str
    """For people: what is done to whom."""
    at_round: int = 1
    after_s: float = 0.0
    for_rounds: int | None = None
    """It is healed once that many more rounds have been opened, and after `at_most_s` at the latest."""
    at_most_s: float = 0.0
    """The longest that it lasts; without `for_rounds`, exactly how long."""

    @property
    def start(self) -> str:
        """When it begins, for people."""
        if self.at_round == 1:
            return f"at {self.after_s:g} s"
        return f"round {self.at_round}" + (f" + {self.after_s:g} s" if self.after_s else "")

    @property
    def duration(self) -> str:
        """How long it lasts, for people."""
        if self.fault.kind in INSTANT:
            return "at once"
        if self.for_rounds is None:
            return f"{self.at_most_s:g} s"
        return f"{self.for_rounds} round{'s' * (self.for_rounds > 1)}, at most {self.at_most_s:g} s"


class HealReason(StrEnum):
    """Why a fault was healed."""

    OVER = "over"
    """Its time or its rounds were over."""
    BOUND = "bound"
    """Its rounds were not, but its `at_most_s`."""
    END = "end"
    """The run ended, or was stopped."""


@dataclass(frozen=True)
class Begin:
    """Apply this fault now."""

    planned: PlannedFault


@dataclass(frozen=True)
class Heal:
    """Heal this fault now."""

    planned: PlannedFault
    reason: HealReason


Change = Begin | Heal


@dataclass
class _Active:
    planned: PlannedFault
    round_number: int
    began_s: float


@dataclass
class Timeline:
    """What is waiting, and what is going on. A fault begins at most once, and what has begun is healed at most once.

    Observations that go backwards count as the furthest so far. A fault whose start is seen late begins late, and
    lasts as long as planned.
    """

    planned: Sequence[PlannedFault]
    _waiting: list[PlannedFault] = field(init=False)
    _active: list[_Active] = field(default_factory=list, init=False)
    _reached_s: dict[int, float] = field(default_factory=dict, init=False)
    """When each round that starts something was first seen open, or a later one."""
    _round: int = field(default=0, init=False)
    _now_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Nothing has begun."""
        self._waiting = list(self.planned)

    @property
    def active(self) -> list[PlannedFault]:
        """What has begun and is not healed."""
        return [active.planned for active in self._active]

    def step(self, round_number: int, now_s: float) -> list[Change]:
        """What to do now, in order. `round_number` is the open round (0 before the first), `now_s` the time since it.

        Healing comes first, so that a fault can follow another on the same participant.
        """
        self._round = max(self._round, round_number)
        self._now_s = max(self._now_s, now_s)
        for planned in self._waiting:
            if self._round >= planned.at_round:
                self._reached_s.setdefault(planned.at_round, self._now_s)
        changes: list[Change] = [
            Heal(active.planned, reason) for active in self._active if (reason := self._reason_to_heal(active))
        ]
        healed = {change.planned.number for change in changes}
        self._active = [active for active in self._active if active.planned.number not in healed]
        for planned in [waiting for waiting in self._waiting if self._is_due(waiting)]:
            self._waiting.remove(planned)
            changes.append(Begin(planned))
            if planned.fault.kind in INSTANT:
                changes.append(Heal(planned, HealReason.OVER))
            else:
                self._active.append(_Active(planned, self._round, self._now_s))
        return changes

    def _is_due(self, planned: PlannedFault) -> bool:
        reached_s = self._reached_s.get(planned.at_round)
        return reached_s is not None and self._now_s >= reached_s + planned.after_s

    def _reason_to_heal(self, active: _Active) -> HealReason | None:
        planned = active.planned
        if planned.for_rounds is not None and self._round >= active.round_number + planned.for_rounds:
            return HealReason.OVER
        if self._now_s >= active.began_s + planned.at_most_s:
            return HealReason.OVER if planned.for_rounds is None else HealReason.BOUND
        return None


def label_of(fault: Fault, split: str = "") -> str:
    """A fault for people, for example "kill 3, 4" or "partition minority: 2, 5"."""
    names = ["server" if target == SERVER else str(target) for target in fault.targets]
    what = {
        FaultKind.LATENCY: f" {fault.delay_s:g} ± {fault.jitter_s:g} s",
        FaultKind.BANDWIDTH: f" {fault.bytes_per_s:g} B/s",
        FaultKind.LOSS: f" {100 * fault.fraction:g} %",
        FaultKind.CORRUPTION: f" {100 * fault.fraction:g} %",
        FaultKind.SLOW_CPU: f" {100 * fault.fraction:g} %",
    }.get(fault.kind, "")
    to_whom = f" {split}: " if split else ": " if what else " "
    return f"{fault.kind.value}{what}{to_whom}{', '.join(names)}"
