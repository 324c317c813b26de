"""The status says what the run waits for, who is there and what they did, also to callers that are no agents."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_server.protocol.coordinator import Phase
from fedpg_server.protocol.status import describe_round, summarize
from support.protocol import CALL_TIMEOUT_S, Door, idle_federation, make_round_record, make_submission, serving

SOON_S = 0.02
Presence = pb.AgentStatus


async def until_phase(door: Door, phase: Phase) -> pb.GetStatusReply:
    while door.run.coordinator.phase is not phase:
        await asyncio.sleep(0.005)
    return await door.status()


def test_a_round_that_waits_below_its_quorum_and_goes_on(tmp_path: Path) -> None:
    async def play() -> None:
        federation = idle_federation(3, 2, round_timeout_s=SOON_S)
        async with serving(tmp_path, federation, start_rounds=False) as door:
            door.run.coordinator._gathering.grace_s = SOON_S  # agent 3 is not waited for for long
            door.start_rounds()
            await door.stub.Join(pb.JoinRequest(agent=2), timeout=CALL_TIMEOUT_S)
            await door.vote(1, await door.open_round(1, 0))
            status = await until_phase(door, Phase.BELOW_QUORUM)
            assert status.phase == pb.PHASE_BELOW_QUORUM
            assert status.message == "round 1 is below the quorum of 2: 1 more of agents 2, 3 must submit"
            assert (status.round, status.quorum, status.deadline_in_s) == (1, 2, 0.0)
            assert (status.trajectories, status.trajectories_target) == (0, 2)
            assert not status.HasField("latest")
            one, two, three = status.agents
            assert [agent.agent for agent in status.agents] == [1, 2, 3]
            assert (one.presence, one.voted, one.last_vote_round) == (Presence.PRESENCE_JOINED, True, 1)
            assert (one.last_verdict, one.last_seen_s >= 0) == (pb.VERDICT_ACCEPTED, True)
            assert (two.presence, two.voted, two.last_vote_round) == (Presence.PRESENCE_JOINED, False, 0)
            assert (three.presence, three.last_seen_s) == (Presence.PRESENCE_NEVER_SEEN, -1.0)
            await door.vote(3, await door.open_round(3, 0))
            second = await door.open_round(3, 1)
            while (status := await door.status()).latest.round < 1:  # it is evaluated while round 2 is open
                await asyncio.sleep(0.005)
            assert status.latest.round == 1
            assert (list(status.latest.accepted), list(status.latest.absent)) == ([1, 3], [2])
            assert [agent.rounds_accepted for agent in status.agents] == [1, 0, 1]
            await door.stub.Leave(pb.LeaveRequest(run_id=door.run.run_id, agent=2), timeout=CALL_TIMEOUT_S)
            assert (await door.status()).agents[1].presence == Presence.PRESENCE_LEFT
            await door.vote(1, second)
            await door.vote(3, second)
            assert (await until_phase(door, Phase.ENDED)).message == "the run has ended"
            assert len(await door.finish()) == 2

    asyncio.run(play())


def test_a_round_that_collects_tells_its_deadline(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1, round_timeout_s=500.0)) as door:
            await door.open_round(1, 0)
            status = await door.status()
            assert (status.phase, status.deadline_in_s) == (pb.PHASE_JOINING, 0.0)
            assert status.message == "starting: 1 of 2 agents have joined, a quorum is 2"
            await door.open_round(2, 0)
            status = await door.status()
            assert status.phase == pb.PHASE_COLLECTING
            assert 400.0 < status.deadline_in_s <= 500.0
            assert status.message == "round 1: 0 of 2 votes, waiting for agents 1, 2"

    asyncio.run(play())


def test_a_thousand_agents_fit_in_one_status(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(1000, 1)) as door:
            await door.open_round(1, 0)
            status = await door.status()
            assert len(status.agents) == 1000
            assert status.message == "starting: 1 of 1000 agents have joined, a quorum is 600"

    asyncio.run(play())


def test_fetching_a_round_changes_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1)) as door:
            first = await door.open_round(1, 0)
            assert await door.open_round(1, 0) == first
            before = (await door.status()).agents
            assert [agent.voted for agent in before] == [False, False]
            assert (await door.poll(1, 1)).state == pb.AwaitRoundReply.STATE_NOT_YET

    asyncio.run(play())


def test_a_submission_that_reaches_a_restarted_server_first_is_judged_when_its_round_is_known(tmp_path: Path) -> None:
    """The agent's retry may be the very first call; it must not be told that its round is unknown."""

    async def first_life() -> pb.SubmitUpdateRequest:
        async with serving(tmp_path, idle_federation(2, 1)) as door:
            await door.vote(1, await door.open_round(1, 0))
            return make_submission(door.run.run_id, 2, await door.open_round(2, 0))

    async def second_life(late: pb.SubmitUpdateRequest) -> None:
        async with serving(tmp_path, idle_federation(2, 1), start_rounds=False) as door:
            call = asyncio.ensure_future(door.submit(late))
            await door.status()  # on the same connection, so that the submission has arrived when this is answered
            door.start_rounds()
            assert (await call).verdict == pb.VERDICT_ACCEPTED
            assert [record.accepted for record in await door.finish()] == [(1, 2)]

    asyncio.run(second_life(asyncio.run(first_life())))


def test_what_status_and_log_say_of_a_round() -> None:
    record = make_round_record(3, parameters_digest="ab" * 32, training_return=None)
    summary = summarize(record)
    assert (summary.round, summary.evaluation_return, summary.rule) == (3, 25.0, "R1")
    assert summary.parameters_digest == b"\xab" * 32
    assert math.isnan(summary.training_return)
    line = describe_round(record, 5000)
    for part in (
        "round 3",
        "48/5000 trajectories",
        "return 25.0",
        "R1 accepted 3",
        "filtered agent 4",
        "absent agent 5",
    ):
        assert part in line


@pytest.mark.parametrize(
    ("changes", "loud"), [({"accepted": (), "has_mu": False}, "NO GRADIENT"), ({"skipped_steps": 2}, "2 STEPS")]
)
def test_the_log_is_loud_when_something_is_lost(changes: dict[str, object], loud: str) -> None:
    assert loud in describe_round(make_round_record(1, **changes), 100)
    assert loud not in describe_round(make_round_record(1), 100)
