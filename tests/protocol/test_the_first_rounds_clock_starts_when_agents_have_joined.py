"""A server's first round takes votes at once, but its clock starts when a quorum has joined and the rest had time to.

So who starts slowly is not left behind, and with nobody faulty a short round timeout changes no parameter.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from failing_environments import failing_task
from fedpg_common.federation import Federation
from fedpg_server.protocol.coordinator import Coordinator, Phase, Rules
from fedpg_server.protocol.events import Effect, Failed, Joined, Left, Seen, Warn
from fedpg_server.protocol.gathering import GRACE_S
from support.coordinator_driver import QUORUM, ROUND_TIMEOUT_S, Driver, K, digest_of
from support.lab import digests, run_federation


def warnings_of(effects: list[Effect]) -> list[str]:
    return [effect.message for effect in effects if isinstance(effect, Warn)]


def empty(round_timeout_s: float = ROUND_TIMEOUT_S) -> Driver:
    """A server whose first round is open, and nobody there."""
    driver = Driver(Coordinator(Rules(K, QUORUM, round_timeout_s)), joined=False)
    driver.open(1)
    return driver


def test_nobody_is_late_before_a_quorum_has_joined() -> None:
    driver = empty()
    for agent in range(1, QUORUM):
        driver.join(agent)
    for _ in range(10):
        driver.pass_time(ROUND_TIMEOUT_S)
    assert driver.coordinator.phase is Phase.JOINING
    assert driver.coordinator.waiting_for() == f"starting: {QUORUM - 1} of {K} agents have joined, a quorum is {QUORUM}"


def test_with_all_ready_it_starts_at_once() -> None:
    driver = empty()
    driver.pass_time(5.0)
    driver.join(*range(1, K + 1))
    assert driver.coordinator.phase is Phase.COLLECTING
    assert driver.coordinator.deadline_s == 5.0 + ROUND_TIMEOUT_S == driver.wake_at_s


def test_the_rest_has_a_grace_period_since_the_last_one_came() -> None:
    driver = empty(round_timeout_s=3.0)
    for agent in range(1, K):
        driver.join(agent)
        driver.pass_time(GRACE_S - 1.0)
        assert driver.coordinator.phase is Phase.JOINING
    driver.pass_time(1.0)
    assert driver.coordinator.phase is Phase.COLLECTING
    assert driver.coordinator.deadline_s == driver.now_s + 3.0


def test_an_agent_that_makes_its_environment_is_waited_for() -> None:
    """It has joined, and asks for a round when it is ready."""
    driver = empty()
    driver.join(*range(1, K))
    driver.step(Joined(K))
    driver.pass_time(GRACE_S - 1.0)
    assert driver.coordinator.present == frozenset(range(1, K + 1))
    driver.step(Seen(K))
    assert driver.coordinator.phase is Phase.COLLECTING


def test_nobody_can_hold_it_up_by_coming_and_going() -> None:
    driver = empty()
    driver.join(*range(1, QUORUM + 1))
    for _ in range(3 * int(GRACE_S)):
        driver.step(Joined(1))
        driver.pass_time(0.5)
        driver.step(Left(1))
        driver.step(Joined(1))
        driver.pass_time(0.5)
    assert driver.coordinator.phase is not Phase.JOINING


@pytest.mark.parametrize("goodbye", [Left(QUORUM), Failed(QUORUM, "it broke")])
def test_who_has_gone_is_not_there(goodbye: Left | Failed) -> None:
    driver = empty()
    driver.join(*range(1, QUORUM + 1))
    driver.step(goodbye)
    driver.pass_time(GRACE_S)
    assert driver.coordinator.phase is Phase.JOINING


def test_votes_count_meanwhile_and_all_of_them_close_the_round() -> None:
    driver = empty()
    for agent in range(1, K + 1):
        driver.submit(agent, 1)
    assert driver.closed == {1: (1, 2, 3, 4, 5)}
    driver.improve(1)
    driver.open(2)
    assert driver.coordinator.phase is Phase.COLLECTING


def test_a_vote_shows_that_its_agent_is_there() -> None:
    driver = empty()
    for agent in range(1, QUORUM + 1):
        driver.submit(agent, 1)
    driver.pass_time(GRACE_S)
    assert driver.coordinator.phase is Phase.COLLECTING
    driver.pass_time(ROUND_TIMEOUT_S)
    assert driver.closed == {1: (1, 2, 3)}


def test_a_restarted_server_waits_in_the_same_way_for_those_that_were_there() -> None:
    driver = Driver(joined=False)
    driver.open(7, votes={agent: digest_of("gradient") for agent in range(1, QUORUM + 1)})
    driver.pass_time(GRACE_S - 1.0)
    assert driver.coordinator.phase is Phase.JOINING
    assert (
        driver.coordinator.waiting_for() == "resuming with round 7: 3 of 5 agents have joined, waiting for agents 4, 5"
    )
    driver.step(Seen(4))
    driver.pass_time(GRACE_S)
    driver.pass_time(ROUND_TIMEOUT_S - 1.0)
    assert not driver.closed
    driver.pass_time(1.0)
    assert driver.closed == {7: (1, 2, 3)}


def test_who_waits_for_long_says_so_every_minute() -> None:
    driver = empty()
    said = [line for _ in range(600) for line in warnings_of(driver.pass_time(1.0))]
    assert said == ["starting: 0 of 5 agents have joined, a quorum is 3"] * 10


def test_agents_that_start_slowly_are_not_left_behind(tmp_path: Path) -> None:
    """Altogether, environments take longer to be made than a round may: agent after agent in one process."""
    (tmp_path / "claims").mkdir()
    slow = failing_task(tmp_path / "claims", "", count=8, slow_s=1.5)
    patient, hasty = (Federation(task=slow, agents=5, round_timeout_s=timeout_s) for timeout_s in (1e5, 6.0))
    run = run_federation(hasty, tmp_path / "hasty", agents_per_process=5)
    assert [record.absent for record in run.records] == [()] * len(run.records)
    assert digests(run) == digests(run_federation(patient, tmp_path / "patient", agents_per_process=5))
