"""An agent that fails, is refused, or waits says so: to the server, in its status and log, and in its own log."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_client.agent import Agent
from fedpg_client.fates import Fate, Refused
from fedpg_client.retry import StoppedError
from fedpg_client.worker import Update, Worker
from fedpg_common.errors import EnvironmentFailedError
from fedpg_common.learning.parameters import Vector
from fedpg_common.transport.verdicts import Verdict
from fedpg_server.protocol.coordinator import Phase
from fedpg_server.protocol.events import Failed, Joined, Warn
from fedpg_server.protocol.membership import NOTE_CHARACTERS_MAX, clean
from fedpg_server.protocol.situation import name_agents
from protocol.test_agent_does_each_round_once import Script
from support.agent_stubs import ENDED, JOINED, NOT_YET, StubWorker, open_reply
from support.coordinator_driver import QUORUM, ROUND_TIMEOUT_S, Driver
from support.protocol import CALL_TIMEOUT_S, SIZE, Door, idle_federation, make_submission, serving

FAILED = pb.LeaveRequest.REASON_FAILED


# To the server --------------------------------------------------------------------------------------------------------


async def leave(door: Door, agent: int, reason: pb.LeaveRequest.Reason.ValueType, detail: str = "") -> pb.AgentStatus:
    request = pb.LeaveRequest(run_id=door.run.run_id, agent=agent, reason=reason, detail=detail)
    await door.stub.Leave(request, timeout=CALL_TIMEOUT_S)
    return (await door.status()).agents[agent - 1]


def test_a_failure_stands_in_status_and_once_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(3, 1)) as door:
            for agent in (1, 2, 3):
                await door.open_round(agent, 0)
            status = await leave(door, 2, FAILED, "environment X-v0: step raised KeyError: 3")
            assert status.presence == pb.AgentStatus.PRESENCE_FAILED
            assert status.note == "environment X-v0: step raised KeyError: 3"
            message = (await door.status()).message
            assert message == (
                "round 1: 0 of 3 votes, waiting for agents 1, 2, 3; "
                "agent 2 has failed: environment X-v0: step raised KeyError: 3"
            )
            await door.stub.Join(pb.JoinRequest(agent=2), timeout=CALL_TIMEOUT_S)
            back = (await door.status()).agents[1]
            assert (back.presence, back.note) == (pb.AgentStatus.PRESENCE_JOINED, "")

    with caplog.at_level(logging.INFO):
        asyncio.run(play())
    assert [record.getMessage() for record in caplog.records if "has failed" in record.getMessage()] == [
        "agent 2 has failed: environment X-v0: step raised KeyError: 3"
    ]


@pytest.mark.parametrize(
    ("reason", "presence"),
    [
        (pb.LeaveRequest.REASON_UNSPECIFIED, pb.AgentStatus.PRESENCE_LEFT),
        (pb.LeaveRequest.REASON_DONE, pb.AgentStatus.PRESENCE_LEFT),
        (pb.LeaveRequest.REASON_STOPPED, pb.AgentStatus.PRESENCE_LEFT),
        (FAILED, pb.AgentStatus.PRESENCE_FAILED),
        (77, pb.AgentStatus.PRESENCE_LEFT),
    ],
)
def test_every_reason_to_leave(tmp_path: Path, reason: int, presence: int) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1)) as door:
            status = await leave(door, 1, reason)  # type: ignore[arg-type]
            assert status.presence == presence
            assert bool(status.note) == (reason == FAILED)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("a\nb\tc\x1b[31mred\x00\u202e", "a b c [31mred"),
        ("x" * 5000, "x" * NOTE_CHARACTERS_MAX),
        ("\n" * 5000 + "x", ""),
        ("Grüße, 東京", "Grüße, 東京"),
    ],
)
def test_an_agents_words_are_cut_and_clean(words: str, kept: str) -> None:
    assert clean(words) == kept


def test_who_fails_without_end_does_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1)) as door:
            for number in range(100):
                await leave(door, 1, FAILED, f"again, {number}")

    with caplog.at_level(logging.INFO):
        asyncio.run(play())
    assert sum("has failed" in record.getMessage() for record in caplog.records) < 20


def test_a_refused_gradient_stands_in_status_and_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(3, 2)) as door:
            rounds = {agent: await door.open_round(agent, 0) for agent in (1, 2, 3)}
            for agent in (1, 3):
                bad = make_submission(door.run.run_id, agent, rounds[agent], np.full(SIZE, np.nan, np.float32))
                assert (await door.submit(bad)).verdict == pb.VERDICT_NOT_FINITE
            status = await door.status()
            assert status.message == (
                "round 1: 0 of 3 votes, waiting for agents 1, 2, 3; agents 1, 3: gradients refused, not finite"
            )
            assert [agent.note for agent in status.agents] == [
                "its latest submission was refused: not finite", "", "its latest submission was refused: not finite",
            ]  # fmt: skip
            await door.vote(1, rounds[1])
            assert (await door.status()).message.endswith("agent 3: gradient refused, not finite")

    with caplog.at_level(logging.WARNING):
        asyncio.run(play())
    assert "refused a gradient of agent 1 for round 1: not finite" in caplog.messages


# Below the quorum -----------------------------------------------------------------------------------------------------


def test_below_the_quorum_it_says_why_at_once_when_that_changes_and_every_minute() -> None:
    driver = Driver()
    driver.open(4)
    driver.submit(1, 4, defect=Verdict.NOT_FINITE)
    driver.submit(3, 4, defect=Verdict.NOT_FINITE)
    driver.submit(2, 4)
    driver.submit(5, 4)
    said: list[tuple[float, str]] = []

    def wait(seconds: int) -> None:
        for _ in range(seconds):
            said.extend((driver.now_s, effect.message) for effect in driver.pass_time(1.0) if isinstance(effect, Warn))

    wait(int(ROUND_TIMEOUT_S) + 30)
    driver.step(Failed(4, "it broke"))
    wait(100)
    assert driver.coordinator.phase is Phase.BELOW_QUORUM
    sentence = (
        f"round 4 is below the quorum of {QUORUM}: 1 more of agents 1, 3, 4 must submit; "
        "agents 1, 3: gradients refused, not finite"
    )
    assert said == [(60.0, sentence)] + [(at_s, f"{sentence}; agent 4 has failed: it broke") for at_s in (100.0, 160.0)]
    driver.step(Joined(4))
    driver.submit(4, 4)
    assert driver.closed == {4: (2, 4, 5)}


@pytest.mark.parametrize(
    ("agents", "name"),
    [
        ([], "no agent"),
        ([3], "agent 3"),
        ([1, 2, 3], "agents 1, 2, 3"),
        ([5, 6, 7, 8, 9, 10], "agents 5-10"),
        ([1, 3, 5, 6, 7, 8], "agents 1, 3, 5-8"),
        (range(1, 60, 2), "agents 1, 3, 5, 7, 9, 11, 13, 15, 17, 19 and 20 more"),
    ],
)
def test_agents_are_named_briefly(agents: list[int], name: str) -> None:
    assert name_agents(agents) == name


# The agent ------------------------------------------------------------------------------------------------------------


def agent_on(script: Script, worker: StubWorker, fates: list[Fate], every_s: float = 0.5) -> Agent:
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += every_s
        return now_s

    def make_worker(_joined: pb.JoinReply) -> Worker:
        return worker  # type: ignore[return-value]

    return Agent(2, script, make_worker, clock, fates.append)


class Broken(StubWorker):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def work(self, round_number: int, batch_size: int, theta: Vector) -> Update:
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (EnvironmentFailedError("X-v0: step raised it"), FAILED, "X-v0: step raised it"),
        (RuntimeError("boom"), FAILED, "an unexpected RuntimeError: boom"),
        (SystemExit(0), FAILED, "an unexpected SystemExit: 0"),
        (StoppedError(), pb.LeaveRequest.REASON_STOPPED, ""),
    ],
)
def test_it_leaves_with_a_reason(error: BaseException, reason: int, detail: str) -> None:
    script = Script(open_reply(1))
    with pytest.raises(type(error)):
        agent_on(script, Broken(error), []).run()
    assert script.farewells == [(reason, detail)]


def test_at_the_end_it_just_leaves() -> None:
    script = Script(open_reply(1), ENDED)
    agent_on(script, StubWorker(), []).run()
    assert script.farewells == [(pb.LeaveRequest.REASON_DONE, "")]


class NotANumber(StubWorker):
    def __init__(self, mean_return: float) -> None:
        super().__init__()
        self.mean_return = mean_return

    def work(self, round_number: int, batch_size: int, theta: Vector) -> Update:
        return Update(np.full(SIZE, np.nan, np.float32), 4, 40, self.mean_return, 10.0, 0.5)


@pytest.mark.parametrize(
    ("mean_return", "why"), [(float("nan"), "the environment's rewards add up to nan"), (3.0, "rewards are finite")]
)
def test_it_says_why_its_gradient_is_not_finite_and_tells_whoever_started_it(mean_return: float, why: str) -> None:
    fates: list[Fate] = []
    agent_on(Script(open_reply(1), ENDED, verdict=pb.VERDICT_NOT_FINITE), NotANumber(mean_return), fates).run()
    (fate,) = fates
    assert isinstance(fate, Refused)
    assert (fate.agent, fate.round_number, fate.verdict) == (2, 1, Verdict.NOT_FINITE)
    assert why in fate.reason


@pytest.mark.parametrize("verdict", [pb.VERDICT_ACCEPTED, pb.VERDICT_DUPLICATE, pb.VERDICT_STALE_ROUND])
def test_a_vote_that_counts_or_came_too_late_is_not_a_refusal(verdict: int) -> None:
    fates: list[Fate] = []
    agent_on(Script(open_reply(1), ENDED, verdict=verdict), StubWorker(), fates).run()
    assert fates == []


def test_an_agent_without_a_round_says_why_a_line_a_minute_at_most(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(*[NOT_YET] * 19, ENDED)
    with caplog.at_level(logging.INFO):
        agent_on(script, StubWorker(), [], every_s=20.0).run()
    lines = [line for line in caplog.messages if "no new round" in line]
    assert lines == [
        f"agent 2: no new round for {seconds} s: round 1 waits" for seconds in (60, 120, 180, 240, 300, 360)
    ]


def test_a_run_that_has_ended_already_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(ENDED)
    with caplog.at_level(logging.INFO):
        agent_on(script, StubWorker(), []).run()
    assert any("the run had ended already" in line for line in caplog.messages)
    assert JOINED.run_id
