"""Whatever goes wrong in between, all that has begun is healed and the backend closed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from fedpg_common.errors import FedPGError
from fedpg_lab.faults.backend import FaultKind, UnsupportedFaultError
from fedpg_lab.faults.history import Ending, FaultSpan, History
from fedpg_lab.faults.runner import POLL_S
from fedpg_lab.faults.timeline import INSTANT, HealReason, PlannedFault
from hypothesis import given
from hypothesis import strategies as st
from support.faults import (
    TICK_S,
    PlayedFederation,
    assert_all_is_healed,
    is_soon_after,
    plan,
    planned_faults,
    play,
)


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
