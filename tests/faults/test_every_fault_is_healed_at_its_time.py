"""A fault begins when its round or its time has come, is healed once it has lasted as planned, and whatever happens in
between, all that has begun is healed and the backend closed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.errors import FedPGError
from fedpg_lab.faults.backend import FaultKind, UnsupportedFaultError
from fedpg_lab.faults.history import Ending, FaultSpan, History
from fedpg_lab.faults.runner import LEAVE_S, POLL_S
from fedpg_lab.faults.timeline import INSTANT, Begin, Change, Heal, HealReason, PlannedFault, Timeline
from hypothesis import given
from hypothesis import strategies as st
from support.faults import PlayedFederation, Unseen, plan, play

TICK_S = 1e-6
"""What sums of floats may be off by."""


def acts(changes: Sequence[Change]) -> list[str]:
    """The changes in short: +N begins and -N heals fault N."""
    return [f"{'+' if isinstance(change, Begin) else '-'}{change.planned.number}" for change in changes]


def is_soon_after(time_s: float | None, due_s: float) -> bool:
    """Whether it is that time, as exactly as a look every POLL_S can tell."""
    return time_s is not None and due_s - TICK_S <= time_s <= due_s + POLL_S + TICK_S


# The timeline ---------------------------------------------------------------------------------------------------------


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


def planned_faults() -> st.SearchStrategy[list[PlannedFault]]:
    """Faults of some rounds or some time, and restarts; half seconds, which floats can hold."""

    def fault(number: int) -> st.SearchStrategy[PlannedFault]:
        start = {"at_round": st.integers(1, 8), "after_s": st.integers(0, 12).map(lambda n: n / 2)}
        lasting = st.builds(plan, st.just(number), **start, for_rounds=st.none() | st.integers(1, 4),
                            at_most_s=st.integers(1, 12).map(lambda n: n / 2))  # fmt: skip
        return lasting | st.builds(plan, st.just(number), st.just(FaultKind.RESTART), **start)

    return st.integers(0, 8).flatmap(lambda count: st.tuples(*map(fault, range(1, count + 1))).map(list))


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


# A scenario -----------------------------------------------------------------------------------------------------------


def assert_all_is_healed(history: History, federation: PlayedFederation) -> None:
    """Everything that has begun is healed, exactly once and not before, and the backend is closed last of all."""
    assert all(span.heal_s is not None and span.heal_s >= span.begin_s for span in history.faults)
    lasting = [span.planned.fault for span in history.faults if span.planned.fault.kind not in INSTANT]
    assert Counter(fault for _, fault in federation.healed) == Counter(lasting)
    assert [fault for _, fault in federation.applied] == [span.planned.fault for span in history.faults]
    assert federation.calls[-1] == "close"
    assert federation.calls.count("close") == 1


def test_a_scenario_is_played_at_its_times() -> None:
    by_round = plan(1, at_round=3, at_most_s=4.0)
    by_time = plan(2, after_s=6.0, for_rounds=2, at_most_s=60.0)
    never = plan(3, at_round=50, at_most_s=1.0)
    federation = PlayedFederation(opens_s=(3.0, 8.0, 10.0, 14.0, 20.0), ends_s=25.0, leaves_s=26.0)
    display = Unseen()
    history, said = play(federation, [by_round, by_time, never], display=display)
    assert_all_is_healed(history, federation)
    # Seconds since the first round opened: at_round 3 opens at 7; two rounds after the third, the fifth opens at 17.
    spans = {span.planned.number: span for span in history.faults}
    assert is_soon_after(spans[1].begin_s, 7.0)
    assert is_soon_after(spans[1].heal_s, spans[1].begin_s + 4.0)
    assert (spans[1].begin_round, spans[1].heal_round, spans[1].reason) == (3, 4, HealReason.OVER)
    assert is_soon_after(spans[2].begin_s, 6.0)
    assert is_soon_after(spans[2].heal_s, 11.0)
    assert (spans[2].begin_round, spans[2].heal_round, spans[2].reason) == (2, 4, HealReason.OVER)
    assert history.never_begun == [never]
    assert (history.ending, history.failures) == (Ending.ENDED, [])
    assert is_soon_after(history.end_s, 22.0)
    assert [line.split("  ")[-1] for line in said] == [
        by_time.label, by_round.label, f"healed: {by_time.label}", f"healed: {by_round.label}",
    ]  # fmt: skip
    assert f"[{by_time.label}; {by_round.label}]" in display.notes
    assert federation.calls[:2] == ["check", "start"]
    assert federation.calls[-2:] == ["finish", "close"]


def test_what_was_seen_of_the_run_is_in_the_history() -> None:
    def phases(now_s: float) -> pb.Phase.ValueType | None:
        return None if 5 <= now_s < 8 else pb.PHASE_BELOW_QUORUM if 12 <= now_s < 13 else pb.PHASE_COLLECTING

    federation = PlayedFederation(opens_s=(1.0, 3.0, 9.05, 9.1), ends_s=15.0, leaves_s=16.0, phases=phases)
    display = Unseen()
    history, _ = play(federation, [], display=display)
    ((silent,), (below,)) = (history.silent, history.below_quorum)
    assert is_soon_after(silent.begin_s, 4.0)
    assert is_soon_after(silent.end_s, 7.0)
    assert silent.round_number == 2
    assert is_soon_after(below.begin_s, 11.0)
    assert is_soon_after(below.end_s, 12.0)
    assert below.round_number == 4
    assert "[no answer from the server]" in display.notes
    assert {number for number, _ in history.told} == {1, 3}, (
        "round 2 closed unseen between two looks, and round 4 is open"
    )
    assert (1, "01") in history.told
    assert {number: is_soon_after(history.opened_s[number], due_s) for number, due_s in ((1, 0), (2, 2), (4, 8))} == {
        1: True, 2: True, 4: True,
    }  # fmt: skip


def test_a_run_that_ends_early_is_healed_at_its_end() -> None:
    planned = [plan(1, at_most_s=500.0), plan(2, for_rounds=100, at_most_s=500.0), plan(3, after_s=20.0, at_most_s=1.0)]
    federation = PlayedFederation(ends_s=10.0, leaves_s=11.0)
    history, _ = play(federation, planned)
    assert_all_is_healed(history, federation)
    assert [(span.planned.number, span.reason) for span in history.faults] == [(1, HealReason.END), (2, HealReason.END)]
    assert history.never_begun == [planned[2]]
    assert history.ending is Ending.ENDED


def test_a_server_that_leaves_unseen_ends_the_scenario() -> None:
    federation = PlayedFederation(
        leaves_s=5.1,
        phases=lambda now_s: None if now_s > 4.9 else pb.PHASE_COLLECTING,  # one look finds it gone
    )
    history, _ = play(federation, [plan(1, at_most_s=500.0)])
    assert history.silent == []
    assert_all_is_healed(history, federation)
    assert (history.ending, history.failures) == (Ending.ENDED, [])


def test_a_scenario_ends_when_its_time_is_over() -> None:
    federation = PlayedFederation()
    history, _ = play(federation, [plan(1, at_most_s=500.0)], at_most_s=30.0)
    assert_all_is_healed(history, federation)
    assert history.ending is Ending.OUT_OF_TIME
    assert is_soon_after(federation.now_s, 30.0)


def test_a_server_that_never_leaves_is_no_good_end() -> None:
    federation = PlayedFederation(ends_s=5.0)
    history, _ = play(federation, [])
    assert history.ending is Ending.FAILED
    assert history.failures == [f"the server has not ended {LEAVE_S:g} s after the run"]
    assert is_soon_after(federation.now_s, federation.ends_s + LEAVE_S)
    assert federation.calls[-2:] == ["finish", "close"]


# When something fails -------------------------------------------------------------------------------------------------


class BrokenError(FedPGError):
    """What a backend in a test fails with."""


def failing(call: str, error: BaseException, after: int = 0) -> Callable[[str], None]:
    """Fail once at that call, after it has been made some times."""
    left = [after]

    def on_call(made: str) -> None:
        if made == call:
            left[0] -= 1
            if left[0] == -1:
                raise error

    return on_call


TROUBLED = [
    plan(1, at_most_s=50.0),
    plan(2, after_s=5.0, for_rounds=1, at_most_s=50.0),
    plan(3, FaultKind.RESTART, after_s=10.0),
    plan(4, at_round=2, at_most_s=2.0),
    plan(5, at_round=2, at_most_s=50.0),
]
"""When round 2 opens, healing 2 and beginning 4 and 5 fall together."""


def troubled(on_call: Callable[[str], None]) -> tuple[History, PlayedFederation]:
    federation = PlayedFederation(opens_s=(0.0, 20.0, 60.0), ends_s=70.0, leaves_s=71.0, on_call=on_call)
    history, _ = play(federation, TROUBLED)
    return history, federation


@pytest.mark.parametrize("call", ["apply 1", "apply 3", "apply 4", "heal 2", "heal 1", "heal 5", "supervise", "status"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), BrokenError("it broke")], ids=type)
def test_everything_is_healed_when_something_goes_wrong(call: str, error: BaseException) -> None:
    after = 140 if call in ("supervise", "status") else 0  # while round 2 is open
    history, federation = troubled(failing(call, error, after))
    assert_all_is_healed(history, federation)
    assert federation.calls[-2] == "finish"
    is_broken = isinstance(error, BrokenError)
    assert history.ending is (Ending.FAILED if is_broken else Ending.INTERRUPTED)
    assert history.failures == (["it broke"] if is_broken else [])
    begun = {span.planned.number for span in history.faults}
    assert [planned.number for planned in history.never_begun] == [n for n in range(1, 6) if n not in begun]


def test_one_that_cannot_be_healed_does_not_keep_the_others_from_it() -> None:
    def on_call(call: str) -> None:
        if call == "heal 1":
            raise BrokenError("it stays broken")

    history, federation = troubled(on_call)
    unhealed = [span.planned.number for span in history.faults if span.heal_s is None]
    assert unhealed == [1]
    assert {fault.targets[0] for _, fault in federation.healed} == {2, 4, 5}
    assert federation.calls.count("heal 1") == 3, "it is tried again at the end"
    assert history.ending is Ending.FAILED
    assert history.failures == ["it stays broken"]
    assert federation.calls[-2:] == ["finish", "close"]


@pytest.mark.parametrize("call", ["supervise", "finish"])
def test_what_fails_after_the_end_is_told(call: str) -> None:
    looks = 26 if call == "supervise" else 0  # the 26th, at 5 s, sees the end
    federation = PlayedFederation(ends_s=5.0, leaves_s=7.0, on_call=failing(call, BrokenError("it broke"), looks))
    history, _ = play(federation, [])
    assert history.ending is Ending.FAILED
    assert history.failures == ["it broke"]
    assert federation.calls[-2:] == ["finish", "close"]


@pytest.mark.parametrize(
    "error", [BrokenError("it broke"), KeyboardInterrupt(), OSError("nobody expects it")], ids=type
)
def test_a_run_that_cannot_start_is_closed(error: BaseException) -> None:
    federation = PlayedFederation(on_call=failing("start", error))
    with pytest.raises(type(error)):
        play(federation, [plan(1)])
    assert federation.calls == ["check", "start", "close"]


def test_a_bug_in_a_backend_is_not_hidden_and_the_backend_closed() -> None:
    federation = PlayedFederation(on_call=failing("apply 1", ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        play(federation, [plan(1)])
    assert federation.calls[-1] == "close"


def test_a_fault_that_cannot_be_made_is_refused_before_anything_starts() -> None:
    federation = PlayedFederation(on_call=failing("check", UnsupportedFaultError("no network namespaces")))
    with pytest.raises(UnsupportedFaultError):
        play(federation, [plan(1)])
    assert federation.calls == ["check"]


@given(
    planned_faults(),
    st.lists(st.integers(0, 20).map(lambda n: n / 4), min_size=1, max_size=12),
    st.integers(1, 30),
    st.none() | st.tuples(st.integers(0, 120), st.sampled_from([KeyboardInterrupt, BrokenError])),
)
def test_in_any_scenario_everything_that_begins_is_healed_once(
    planned: list[PlannedFault],
    gaps_s: list[float],
    ends_s: int,
    trouble: tuple[int, type[BaseException]] | None,
) -> None:
    """Rounds open at random times, and at a random call before the end something may go wrong."""
    made = 0

    def on_call(call: str) -> None:
        nonlocal made
        made += 1
        if trouble is not None and made == trouble[0] + 3 and call not in ("close", "finish"):
            raise trouble[1]("trouble")

    opens_s = [sum(gaps_s[: n + 1]) for n in range(len(gaps_s))]
    federation = PlayedFederation(opens_s=opens_s, ends_s=ends_s, leaves_s=ends_s + 1.0, on_call=on_call)
    history, _ = play(federation, planned)
    assert_all_is_healed(history, federation)
    assert {s.planned.number for s in history.faults} | {p.number for p in history.never_begun} == {
        p.number for p in planned
    }
    for span in history.faults:
        assert_kept_its_time(span, opens_s)


def assert_kept_its_time(span: FaultSpan, opens_s: Sequence[float]) -> None:
    """It began no sooner than planned, and lasted as planned unless the run was over."""
    planned = span.planned
    due_s = opens_s[planned.at_round - 1] - opens_s[0] + planned.after_s
    assert span.begin_s >= due_s - POLL_S - TICK_S  # the clock starts when the first round is seen, up to a look late
    assert span.heal_s is not None
    lasted_s = span.heal_s - span.begin_s
    if planned.fault.kind in INSTANT:
        assert lasted_s == 0
    elif span.reason is HealReason.OVER and planned.for_rounds is not None:
        assert (span.heal_round or 0) >= span.begin_round + planned.for_rounds
        assert lasted_s <= planned.at_most_s + POLL_S + TICK_S
    elif span.reason is not HealReason.END:
        assert is_soon_after(lasted_s, planned.at_most_s)
    assert not math.isnan(lasted_s)
