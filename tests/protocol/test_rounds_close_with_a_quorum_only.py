"""A round closes when all K have voted, or at its deadline with a quorum; below that it waits until agents return."""

from __future__ import annotations

import pytest
from fedpg_common.descriptions import describe
from fedpg_server.protocol.coordinator import Coordinator, Phase, Rules
from fedpg_server.protocol.events import Effect, Joined, Left, Seen, Tick, Warn
from support.coordinator_driver import QUORUM, ROUND_TIMEOUT_S, Driver, K


def opened(votes: int = 0) -> Driver:
    driver = Driver()
    driver.open(1)
    for agent in range(1, votes + 1):
        driver.submit(agent, 1)
    return driver


def warnings_of(effects: list[Effect]) -> list[str]:
    return [effect.message for effect in effects if isinstance(effect, Warn)]


def test_it_closes_at_once_when_all_have_voted() -> None:
    driver = opened(votes=K - 1)
    assert not driver.closed
    driver.submit(K, 1)
    assert driver.closed == {1: (1, 2, 3, 4, 5)}
    assert driver.coordinator.phase is Phase.IMPROVING
    assert driver.pass_time(2 * ROUND_TIMEOUT_S) == [], "and the deadline no longer matters"


@pytest.mark.parametrize("votes", range(QUORUM, K))
def test_it_closes_at_its_deadline_with_a_quorum(votes: int) -> None:
    driver = opened(votes)
    driver.pass_time(ROUND_TIMEOUT_S - 0.001)
    assert not driver.closed, "never before the deadline"
    driver.pass_time(0.001)
    assert driver.closed == {1: tuple(range(1, votes + 1))}


@pytest.mark.parametrize("votes", range(QUORUM))
def test_below_the_quorum_it_waits_says_so_once_and_goes_on_when_agents_return(votes: int) -> None:
    driver = opened(votes)
    assert len(warnings_of(driver.pass_time(ROUND_TIMEOUT_S))) == 1
    assert driver.coordinator.phase is Phase.BELOW_QUORUM
    assert f"{QUORUM - votes} more" in driver.coordinator.waiting_for()
    assert not warnings_of(driver.step(Tick()))
    for agent in range(votes + 1, QUORUM):
        driver.pass_time(1000.0)
        driver.submit(agent, 1)
        assert not driver.closed
    driver.submit(QUORUM, 1)
    assert driver.closed == {1: (1, 2, 3)}, "the vote that makes the quorum closes it"


def test_a_timer_that_fires_early_is_set_again() -> None:
    driver = opened(votes=QUORUM)
    driver.now_s = ROUND_TIMEOUT_S - 1e-6
    driver.step(Tick())
    assert not driver.closed
    driver.pass_time(1e-6)
    assert driver.closed


def test_each_round_has_a_deadline_of_its_own() -> None:
    driver = opened(votes=K)
    driver.pass_time(50.0)
    driver.improve(1)
    driver.open(2)
    for agent in range(1, QUORUM + 1):
        driver.submit(agent, 2)
    driver.pass_time(20.0)
    assert 2 not in driver.closed, "70 s are the first round's deadline, not the second's"
    driver.pass_time(40.0)
    assert 2 in driver.closed


def test_coming_and_going_neither_votes_nor_closes() -> None:
    driver = opened(votes=2)
    for agent in range(K + 2):
        for event in (Joined(agent), Seen(agent), Left(agent)):
            assert driver.step(event) == []
    driver.pass_time(ROUND_TIMEOUT_S)
    assert not driver.closed


def test_one_agent_alone_is_its_own_quorum() -> None:
    driver = Driver(Coordinator(Rules(agents=1, quorum=1, round_timeout_s=60.0)))
    driver.open(1)
    driver.pass_time(1000.0)
    assert not driver.closed
    driver.submit(1, 1)
    assert driver.closed == {1: (1,)}


@pytest.mark.parametrize(
    ("agents", "alpha", "quorum"), [(10, 0.4, 6), (10, 0.3, 7), (5, 0.4, 3), (1, 0.4, 1), (2, 0.4, 2), (7, 0.0, 7)]
)
def test_the_quorum_is_all_but_the_tolerated_faulty(agents: int, alpha: float, quorum: int) -> None:
    assert describe("CartPole-v1", agents=agents, alpha=alpha).quorum == quorum
