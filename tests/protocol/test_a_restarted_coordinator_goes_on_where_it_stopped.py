"""After a restart, stored votes count, a closed round stays closed, and counts go on."""

from __future__ import annotations

from collections import Counter

from fedpg_common.transport.verdicts import Verdict
from fedpg_server.protocol.coordinator import Coordinator, Member, Phase, Presence, Rules
from fedpg_server.protocol.events import Seen
from support.coordinator_driver import QUORUM, ROUND_TIMEOUT_S, Driver, K, digest_of


def test_stored_votes_count_and_are_remembered() -> None:
    driver = Driver()
    driver.open(3, votes={1: digest_of("one"), 2: digest_of("two")})
    assert driver.submit(1, 3, "one") is Verdict.DUPLICATE
    assert driver.submit(2, 3, "other") is Verdict.CONFLICT
    for agent in (3, 4, 5):
        driver.submit(agent, 3)
    assert driver.closed == {3: (1, 2, 3, 4, 5)}


def test_a_round_whose_last_vote_was_stored_just_before_the_crash_closes_at_once() -> None:
    driver = Driver()
    driver.open(3, votes={agent: digest_of("gradient") for agent in range(1, K + 1)})
    assert driver.closed == {3: (1, 2, 3, 4, 5)}


def test_a_closed_round_takes_no_more_votes_and_is_not_closed_again() -> None:
    driver = Driver()
    driver.open(3, votes={agent: digest_of("gradient") for agent in range(1, QUORUM + 1)}, closed=True)
    assert driver.coordinator.phase is Phase.IMPROVING
    assert driver.submit(4, 3) is Verdict.STALE_ROUND
    assert driver.submit(1, 3) is Verdict.DUPLICATE
    driver.pass_time(2 * ROUND_TIMEOUT_S)
    assert not driver.closed


def test_the_deadline_starts_anew() -> None:
    driver = Driver()
    driver.now_s = 1000.0
    driver.open(3, votes={agent: digest_of("gradient") for agent in range(1, QUORUM + 1)})
    driver.pass_time(ROUND_TIMEOUT_S - 1.0)
    assert not driver.closed
    driver.pass_time(1.0)
    assert driver.closed


def test_counts_and_last_votes_go_on() -> None:
    members = {2: Member(last_vote_round=6, verdicts=Counter({Verdict.ACCEPTED: 6}), rounds_accepted=5)}
    driver = Driver(Coordinator(Rules(K, QUORUM, ROUND_TIMEOUT_S), members, intrusions=4, round_number=6))
    driver.open(7)
    driver.submit(2, 7)
    driver.submit(K + 1, 7)
    member = driver.coordinator.members[2]
    assert member.verdicts[Verdict.ACCEPTED] == 7
    assert member.last_vote_round == 7
    assert driver.coordinator.intrusions == 5
    assert sorted(driver.coordinator.members) == list(range(1, K + 1))


def test_an_agent_that_polls_on_after_the_restart_is_known_to_be_there() -> None:
    driver = Driver(joined=False)
    driver.open(3)
    driver.step(Seen(1))
    assert driver.coordinator.members[1].presence is Presence.JOINED
    assert driver.coordinator.members[2].presence is Presence.NEVER_SEEN
