"""What faults cost: when each round was open, and how much longer it took than rounds without a fault do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from fedpg_server.learning.records import RoundRecord

from fedpg_lab.faults.history import History, Wait

SECONDS_MIN = 1e-6
"""What a round counts at least where several share a time."""


@dataclass(frozen=True)
class RoundCost:
    """One closed round on the scenario's clock."""

    round_number: int
    begin_s: float
    end_s: float
    has_fault: bool
    """Whether a fault was on at any time in it."""
    is_below_quorum: bool
    """Whether the server waited for a quorum in it."""
    lost_s: float | None
    """How much longer than the median round without a fault, at least 0; None where there is no such round."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end_s - self.begin_s


def round_costs(records: Sequence[RoundRecord], history: History) -> list[RoundCost]:
    """The rounds in order.

    The times are those at which rounds were seen to open; a restarted server's own clock does not know how long it was
    away. Rounds that passed between two looks share the time between by their own records.
    """
    if not records:
        return []
    times = _times(records, history)
    faults = [(span.begin_s, history.end_s if span.heal_s is None else span.heal_s) for span in history.faults]
    hit = [any(begin <= end_s and end >= begin_s for begin, end in faults) for begin_s, end_s in times]
    calm = [end_s - begin_s for (begin_s, end_s), is_hit in zip(times, hit, strict=True) if not is_hit]
    usual_s = median(calm) if calm else None
    return [
        RoundCost(
            round_number=record.round_number,
            begin_s=begin_s,
            end_s=end_s,
            has_fault=is_hit,
            is_below_quorum=_meets(history.below_quorum, begin_s, end_s),
            lost_s=None if usual_s is None else max(0.0, end_s - begin_s - usual_s) if is_hit else 0.0,
        )
        for record, (begin_s, end_s), is_hit in zip(records, times, hit, strict=True)
    ]


def usual_round_s(costs: Sequence[RoundCost]) -> float | None:
    """The median time of the rounds without a fault, or None."""
    calm = [cost.seconds for cost in costs if not cost.has_fault]
    return median(calm) if calm else None


def _times(records: Sequence[RoundRecord], history: History) -> list[tuple[float, float]]:
    """When each round began and ended. The last one's end is that of the run, unless a round after it was left open."""
    after = len(records) + 1
    seen = {number: time_s for number, time_s in history.opened_s.items() if 1 < number <= after}
    seen.setdefault(after, max([history.end_s, *seen.values()]))
    anchors = [(1, 0.0), *sorted(seen.items())]
    times = []
    for (first, begin_s), (next_seen, end_s) in pairwise(anchors):
        shares = [max(records[number - 1].seconds, SECONDS_MIN) for number in range(first, next_seen)]
        pace = (end_s - begin_s) / sum(shares)
        for share in shares:
            times.append((begin_s, begin_s + pace * share))
            begin_s += pace * share
    return times


def _meets(waits: Sequence[Wait], begin_s: float, end_s: float) -> bool:
    return any(wait.begin_s < end_s and wait.end_s > begin_s for wait in waits)
