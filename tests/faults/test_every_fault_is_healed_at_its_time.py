"""A scenario's faults begin and are healed at their times, and all are healed when the run ends."""

from __future__ import annotations

from fedpg.v1 import federation_pb2 as pb
from fedpg_lab.faults.history import Ending
from fedpg_lab.faults.runner import LEAVE_S
from fedpg_lab.faults.timeline import HealReason
from support.faults import (
    PlayedFederation,
    Unseen,
    assert_all_is_healed,
    is_soon_after,
    plan,
    play,
)


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
