"""The first valid submission of an agent for a round is its vote; every other one gets the verdict it deserves."""

from __future__ import annotations

import pytest
from fedpg_common.transport.verdicts import SENTENCES, Verdict
from fedpg_server.protocol.coordinator import Presence
from fedpg_server.protocol.events import CountVerdict, RunEnded, StoreConflict, StoreVote, Submitted
from support.coordinator_driver import Driver, K, digest_of


def opened(round_number: int = 1) -> Driver:
    driver = Driver()
    driver.open(round_number)
    return driver


def closed() -> Driver:
    """Round 1 closed by all five, round 2 not open yet."""
    driver = opened()
    for agent in range(1, K + 1):
        driver.submit(agent, 1, f"gradient {agent}")
    return driver


def test_the_first_submission_is_the_vote() -> None:
    driver = opened()
    assert driver.submit(2, 1, "first") is Verdict.ACCEPTED
    assert driver.coordinator.votes == {2: digest_of("first")}
    assert driver.stored == {(1, 2): digest_of("first")}


def test_the_same_bytes_again_count_once() -> None:
    driver = opened()
    driver.submit(2, 1, "first")
    assert driver.submit(2, 1, "first") is Verdict.DUPLICATE
    assert len(driver.coordinator.votes) == 1


def test_other_bytes_are_a_conflict_and_go_on_record_while_the_first_stand() -> None:
    driver = opened()
    driver.submit(2, 1, "first")
    event = Submitted(99, 2, 1, b"", digest_of("second"))
    effects = driver.step(event)
    assert StoreConflict(2, 1, digest_of("second")) in effects
    assert driver.submit(2, 1, "second") is Verdict.CONFLICT
    assert driver.coordinator.votes[2] == digest_of("first")


@pytest.mark.parametrize("when", ["closed", "next open", "ended"])
def test_a_vote_is_remembered_after_its_round(when: str) -> None:
    driver = closed()
    if when != "closed":
        driver.improve(1)
        driver.open(2)
    if when == "ended":
        driver.step(RunEnded())
    assert driver.submit(2, 1, "gradient 2") is Verdict.DUPLICATE
    assert driver.submit(2, 1, "other") is Verdict.CONFLICT


def test_a_closed_round_takes_no_votes() -> None:
    driver = opened()
    for agent in (1, 2, 3):
        driver.submit(agent, 1)
    driver.pass_time(60.0)
    assert driver.closed == {1: (1, 2, 3)}
    assert driver.submit(4, 1) is Verdict.STALE_ROUND
    driver.improve(1)
    driver.open(2)
    assert driver.submit(4, 1) is Verdict.STALE_ROUND
    assert driver.submit(4, 2) is Verdict.ACCEPTED


def test_a_round_that_is_not_open_yet_is_unknown() -> None:
    driver = opened()
    assert driver.submit(1, 2) is Verdict.UNKNOWN_ROUND
    assert driver.submit(1, 2**64 - 1) is Verdict.UNKNOWN_ROUND


def test_round_zero_is_never_open() -> None:
    assert Driver().submit(1, 0) is Verdict.STALE_ROUND
    assert opened().submit(1, 0) is Verdict.STALE_ROUND


@pytest.mark.parametrize("parameters", [b"", b"x" * 32, digest_of("parameters 2")])
def test_a_gradient_of_other_parameters_is_no_vote(parameters: bytes) -> None:
    driver = opened()
    assert driver.submit(1, 1, parameters=parameters) is Verdict.WRONG_PARAMETERS
    assert driver.submit(1, 1) is Verdict.ACCEPTED, "and does not spoil the right one that follows"


@pytest.mark.parametrize("defect", [Verdict.WRONG_SHAPE, Verdict.NOT_FINITE, Verdict.WRONG_RUN, Verdict.DAMAGED])
def test_a_defective_gradient_is_no_vote_and_no_conflict(defect: Verdict) -> None:
    driver = opened()
    assert driver.submit(1, 1, "defective", defect=defect) is defect
    assert driver.submit(1, 1, "sound") is Verdict.ACCEPTED
    assert driver.submit(1, 1, "defective", defect=defect) is defect
    assert driver.coordinator.votes[1] == digest_of("sound")


@pytest.mark.parametrize("agent", [0, K + 1, 2**32 - 1])
def test_strangers_are_not_members_whatever_they_send(agent: int) -> None:
    driver = opened()
    assert driver.submit(agent, 1) is Verdict.NOT_A_MEMBER
    assert driver.submit(agent, 1, defect=Verdict.NOT_FINITE) is Verdict.NOT_A_MEMBER
    assert driver.step(Submitted(9, agent, 1, b"", b""))[0] == CountVerdict(0, Verdict.NOT_A_MEMBER)
    assert driver.coordinator.intrusions == 3
    assert agent not in driver.coordinator.members


def test_an_ended_run_takes_no_votes() -> None:
    driver = opened()
    driver.step(RunEnded())
    assert driver.submit(1, 1) is Verdict.RUN_ENDED
    assert driver.submit(1, 2) is Verdict.RUN_ENDED


def test_every_verdict_is_counted_once_for_its_agent() -> None:
    driver = opened()
    driver.submit(3, 1, "a")
    driver.submit(3, 1, "a")
    driver.submit(3, 1, "b")
    driver.submit(3, 7)
    member = driver.coordinator.members[3]
    assert member.verdicts == {
        Verdict.ACCEPTED: 1, Verdict.DUPLICATE: 1, Verdict.CONFLICT: 1, Verdict.UNKNOWN_ROUND: 1,
    }  # fmt: skip
    assert member.last_verdict is Verdict.UNKNOWN_ROUND
    assert member.last_vote_round == 1


def test_an_agent_that_submits_is_there_even_if_it_joined_before_a_restart() -> None:
    driver = Driver(joined=False)
    driver.open(1)
    driver.submit(4, 1)
    assert driver.coordinator.members[4].presence is Presence.JOINED
    assert driver.coordinator.members[3].presence is Presence.NEVER_SEEN


def test_an_accepted_submission_is_stored_before_it_is_answered() -> None:
    kinds = [type(effect).__name__ for effect in opened().step(Submitted(1, 1, 1, digest_of("parameters 1"), b"d"))]
    assert kinds == [StoreVote.__name__, "Answer"]


def test_every_verdict_has_a_sentence() -> None:
    assert set(SENTENCES) == set(Verdict)
    assert all(verdict.sentence.endswith(".") and verdict.sentence.count(". ") == 0 for verdict in Verdict)
