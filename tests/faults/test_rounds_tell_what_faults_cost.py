"""What a round took beyond the usual is what a fault cost, and what cannot be known is not told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from fedpg_lab.faults.costs import RoundCost, round_costs, usual_round_s
from fedpg_lab.faults.history import Ending, FaultSpan, History, Wait
from support.fault_stories import (
    PAUSE,
    record,
)
from support.faults import span


def times_of(costs: Sequence[RoundCost]) -> list[tuple[float, float]]:
    return [(cost.begin_s, cost.end_s) for cost in costs]


def test_time_lost_is_what_a_round_took_beyond_the_median_of_those_without_a_fault() -> None:
    history = History(
        faults=[span(PAUSE, 12.0, 4, 18.0, 4)],
        below_quorum=[Wait(15.0, 19.0, 4)],
        opened_s={1: 0.0, 3: 8.0, 4: 10.0, 5: 20.0},
        end_s=23.0,
    )
    costs = round_costs([record(1, 1.0), record(2, 3.0), record(3), record(4), record(5)], history)
    # Round 2 was not seen to open: by their own clocks the first two share the 8 seconds as 1 to 3.
    assert times_of(costs) == [(0.0, 2.0), (2.0, 8.0), (8.0, 10.0), (10.0, 20.0), (20.0, 23.0)]
    assert [cost.has_fault for cost in costs] == [False, False, False, True, False]
    assert [cost.is_below_quorum for cost in costs] == [False, False, False, True, False]
    assert usual_round_s(costs) == 2.5  # the median of 2, 6, 2 and 3
    assert [cost.lost_s for cost in costs] == [0.0, 0.0, 0.0, 7.5, 0.0]
    assert [cost.seconds for cost in costs] == [2.0, 6.0, 2.0, 10.0, 3.0]


def test_a_round_that_is_quick_in_spite_of_a_fault_loses_nothing() -> None:
    history = History(faults=[span(PAUSE, 5.5, 2, 5.6, 2)], opened_s={1: 0.0, 2: 5.0, 3: 6.0}, end_s=12.0)
    costs = round_costs([record(n) for n in range(1, 4)], history)
    assert [cost.has_fault for cost in costs] == [False, True, False]
    assert [cost.lost_s for cost in costs] == [0.0, 0.0, 0.0]


def test_without_a_calm_round_nothing_is_known_to_be_lost() -> None:
    unhealed = FaultSpan(PAUSE, 0.5, 1)  # lasts to the end
    costs = round_costs([record(1), record(2)], History(faults=[unhealed], opened_s={1: 0.0, 2: 4.0}, end_s=9.0))
    assert [cost.has_fault for cost in costs] == [True, True]
    assert [cost.lost_s for cost in costs] == [None, None]
    assert usual_round_s(costs) is None
    assert round_costs([], History(end_s=9.0)) == []


def test_a_round_that_was_left_open_is_no_part_of_the_one_before() -> None:
    history = History(opened_s={1: 0.0, 2: 3.0, 3: 5.0}, end_s=500.0, ending=Ending.INTERRUPTED)
    assert times_of(round_costs([record(1), record(2)], history)) == [(0.0, 3.0), (3.0, 5.0)]


def test_rounds_that_all_passed_unseen_share_the_time() -> None:
    costs = round_costs([record(1, 0.0), record(2, 1.0), record(3, 3.0)], History(opened_s={0: 0.0}, end_s=8.0))
    assert times_of(costs)[-1] == pytest.approx((2.0, 8.0), abs=1e-4)
    assert all(before.end_s == after.begin_s for before, after in pairwise(costs))
