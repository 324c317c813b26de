"""A timeline begins a fault when its round or its time has come, and heals it once it has lasted as planned."""

from __future__ import annotations

from collections.abc import Sequence

from fedpg_lab.faults.backend import FaultKind
from fedpg_lab.faults.timeline import Begin, Change, Heal, HealReason, PlannedFault, Timeline
from hypothesis import given
from hypothesis import strategies as st
from support.faults import plan, planned_faults


def acts(changes: Sequence[Change]) -> list[str]:
    """The changes in short: +N begins and -N heals fault N."""
    return [f"{'+' if isinstance(change, Begin) else '-'}{change.planned.number}" for change in changes]


def test_a_fault_begins_with_its_round_and_is_healed_after_its_time() -> None:
    timeline = Timeline([plan(1, at_round=3, at_most_s=5.0)])
    assert acts(timeline.step(0, 0.0)) == []
    assert acts(timeline.step(2, 10.0)) == []
    assert acts(timeline.step(3, 11.0)) == ["+1"]
    assert acts(timeline.step(9, 15.9)) == []
    assert timeline.step(9, 16.0) == [Heal(timeline.planned[0], HealReason.OVER)]
    assert acts(timeline.step(10, 100.0)) == []


def test_a_fault_begins_at_its_time_since_the_first_round() -> None:
    timeline = Timeline([plan(1, after_s=4.0, at_most_s=1.0)])
    assert acts(timeline.step(0, 0.0)) == []
    assert acts(timeline.step(1, 0.0)) == []
    assert acts(timeline.step(1, 3.9)) == []
    assert acts(timeline.step(1, 4.0)) == ["+1"]


def test_a_delay_is_counted_from_the_opening_of_the_faults_round() -> None:
    timeline = Timeline([plan(1, at_round=2, after_s=3.0, at_most_s=1.0)])
    assert acts(timeline.step(1, 7.0)) == []
    assert acts(timeline.step(2, 10.0)) == []
    assert acts(timeline.step(5, 12.9)) == []
    assert acts(timeline.step(5, 13.0)) == ["+1"]


def test_a_fault_of_rounds_is_healed_when_they_have_passed_or_its_bound_is_reached() -> None:
    in_time, bound = plan(1, for_rounds=2, at_most_s=60.0), plan(2, for_rounds=9, at_most_s=60.0)
    timeline = Timeline([in_time, bound])
    assert acts(timeline.step(4, 1.0)) == ["+1", "+2"]
    assert acts(timeline.step(5, 2.0)) == []
    assert timeline.step(6, 3.0) == [Heal(in_time, HealReason.OVER)]
    assert acts(timeline.step(6, 60.9)) == []
    assert timeline.step(6, 61.0) == [Heal(bound, HealReason.BOUND)]


def test_a_round_that_passes_unseen_begins_its_faults_and_a_late_fault_lasts_as_long() -> None:
    timeline = Timeline([plan(1, at_round=3, at_most_s=5.0)])
    assert acts(timeline.step(1, 0.0)) == []
    assert acts(timeline.step(8, 9.0)) == ["+1"]
    assert acts(timeline.step(8, 13.9)) == []
    assert acts(timeline.step(8, 14.0)) == ["-1"]


def test_what_goes_backwards_counts_as_the_furthest_so_far() -> None:
    first = plan(1, at_round=3, for_rounds=1, at_most_s=60.0)
    timeline = Timeline([first, plan(2, at_round=3, after_s=2.0, for_rounds=1, at_most_s=60.0)])
    assert acts(timeline.step(3, 10.0)) == ["+1"]
    assert acts(timeline.step(1, 0.0)) == []
    assert acts(timeline.step(3, 11.0)) == []
    assert acts(timeline.step(5, 11.5)) == ["-1"]
    assert acts(timeline.step(1, 12.0)) == ["+2"]
    assert acts(timeline.step(5, 13.0)) == [], "it began in round 5"
    assert acts(timeline.step(6, 14.0)) == ["-2"]


def test_one_fault_can_follow_another_and_what_is_over_at_once_is_healed_at_once() -> None:
    restart = plan(3, FaultKind.RESTART, at_round=2)
    timeline = Timeline([plan(1, for_rounds=1, at_most_s=60.0), plan(2, at_round=2, at_most_s=1.0), restart])
    assert acts(timeline.step(1, 0.0)) == ["+1"]
    assert timeline.active == [timeline.planned[0]]
    assert acts(timeline.step(2, 1.0)) == ["-1", "+2", "+3", "-3"]
    assert timeline.active == [timeline.planned[1]]


def test_a_fault_tells_people_its_time() -> None:
    kinds = [plan(1, after_s=2.5, at_most_s=3.0), plan(2, at_round=4, for_rounds=1, at_most_s=60.0),
             plan(3, FaultKind.RESTART, at_round=4, after_s=1.0), plan(4, for_rounds=2, at_most_s=5.0)]  # fmt: skip
    assert [planned.start for planned in kinds] == ["at 2.5 s", "round 4", "round 4 + 1 s", "at 0 s"]
    assert [planned.duration for planned in kinds] == [
        "3 s", "1 round, at most 60 s", "at once", "2 rounds, at most 5 s",
    ]  # fmt: skip


steps = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6).map(lambda n: n / 2)), max_size=40)
"""How many rounds open, and how many seconds pass, from one look to the next."""


@given(planned_faults(), steps)
def test_in_any_timeline_what_begins_is_healed_once_in_its_time(
    planned: list[PlannedFault], steps: list[tuple[int, float]]
) -> None:
    timeline, round_number, now_s = Timeline(planned), 0, 0.0
    opened_s: dict[int, float] = {}
    began: dict[int, tuple[int, float]] = {}
    healed: set[int] = set()
    for rounds, seconds in steps:
        opened_s |= dict.fromkeys(range(round_number + 1, round_number + rounds + 1), now_s + seconds)
        round_number, now_s = round_number + rounds, now_s + seconds
        for change in timeline.step(round_number, now_s):
            fault = change.planned
            if isinstance(change, Begin):
                assert fault.number not in began
                assert now_s >= opened_s[fault.at_round] + fault.after_s
                began[fault.number] = (round_number, now_s)
                continue
            assert fault.number not in healed
            healed.add(fault.number)
            begin_round, begin_s = began[fault.number]
            rounds_are_over = fault.for_rounds is not None and round_number >= begin_round + fault.for_rounds
            assert rounds_are_over or now_s >= begin_s + fault.at_most_s
        for fault in planned:  # nothing is left out that is due
            if fault.at_round in opened_s and now_s >= opened_s[fault.at_round] + fault.after_s:
                assert fault.number in began
            if fault.number in began and now_s >= began[fault.number][1] + max(fault.at_most_s, 0.5):
                assert fault.number in healed
        assert {fault.number for fault in timeline.active} == set(began) - healed
