"""Whatever one caller opens, holds or begins, it is bounded, and the others still vote."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.transport import wire
from fedpg_server.protocol.polls import POLLS_PER_AGENT_MAX
from fedpg_server.sparse_log import SparseLog
from support.protocol import CALL_TIMEOUT_S, SIZE, Door, idle_federation, make_submission, open_aio_channel, serving

SUBMIT = "/fedpg.v1.Federation/SubmitUpdate"


async def finish_with_votes(door: Door, agents: int = 2) -> None:
    """Everybody votes, and the run ends."""
    round_ = await door.open_round(1, 0)
    for agent in range(1, agents + 1):
        await door.vote(agent, round_)
    assert [record.accepted for record in await door.finish()] == [tuple(range(1, agents + 1))]


async def unreadable_is(door: Door, count: int) -> None:
    """Wait until that many requests have been counted as unreadable."""
    while (await door.status()).unreadable < count:
        await asyncio.sleep(0.005)
    assert (await door.status()).unreadable == count


async def status_code(call: grpc.aio.Call) -> grpc.StatusCode:
    """How a call ends."""
    code: grpc.StatusCode = await call.code()
    return code


def test_a_request_that_never_comes_is_given_up(tmp_path: Path) -> None:
    async def play() -> None:
        async with (
            serving(tmp_path, idle_federation(2, 1), arrival_max_s=1.0) as door,
            open_aio_channel(door.address) as channel,
        ):
            call = channel.stream_unary(SUBMIT, None, None)(None, timeout=CALL_TIMEOUT_S)
            assert await status_code(call) is grpc.StatusCode.DEADLINE_EXCEEDED
            assert await call.details() == "the request has not arrived within 1 s"
            await unreadable_is(door, 1)
            await finish_with_votes(door)

    asyncio.run(play())


def test_a_request_that_its_caller_takes_back_is_counted(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1)) as door, open_aio_channel(door.address) as channel:
            call = channel.stream_unary(SUBMIT, None, None)(None, timeout=CALL_TIMEOUT_S)
            await call.wait_for_connection()
            await door.status()
            call.cancel()
            await unreadable_is(door, 1)
            await finish_with_votes(door)

    asyncio.run(play())


def test_a_request_without_a_message_is_refused(tmp_path: Path) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1)) as door, open_aio_channel(door.address) as channel:
            call = channel.stream_unary(SUBMIT, None, None)(nothing(), timeout=CALL_TIMEOUT_S)
            assert await status_code(call) is grpc.StatusCode.INVALID_ARGUMENT
            await unreadable_is(door, 1)
            await finish_with_votes(door)

    asyncio.run(play())


def test_bytes_that_are_no_message_are_refused_counted_and_no_error_of_the_servers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1)) as door, open_aio_channel(door.address) as channel:
            call = channel.unary_unary(SUBMIT, None, None)(b"\xff\xff\xff", timeout=CALL_TIMEOUT_S)
            assert await status_code(call) is grpc.StatusCode.INVALID_ARGUMENT
            assert "is not the message" in await call.details()
            await unreadable_is(door, 1)
            await finish_with_votes(door)

    asyncio.run(play())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(("excess_bytes", "verdict"), [(0, pb.VERDICT_ACCEPTED), (1, pb.VERDICT_TOO_LARGE)])
def test_a_submission_may_be_as_large_as_the_limit_and_no_larger(
    tmp_path: Path, excess_bytes: int, verdict: pb.Verdict.ValueType
) -> None:
    limit_bytes = wire.message_bytes_max(SIZE)

    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1)) as door:
            round_ = await door.open_round(1, 0)
            request = make_submission(door.run.run_id, 1, round_)
            plain_bytes = request.ByteSize()
            field_of = b"\xfa\x01"  # number 31, which the contract does not have: tag, length in three bytes, content
            filling_bytes = limit_bytes + excess_bytes - plain_bytes - len(field_of) - 3
            length = bytes((filling_bytes & 127 | 128, filling_bytes >> 7 & 127 | 128, filling_bytes >> 14))
            request.MergeFromString(field_of + length + bytes(filling_bytes))
            assert request.ByteSize() == limit_bytes + excess_bytes
            assert (await door.submit(request)).verdict == verdict
            if verdict != pb.VERDICT_ACCEPTED:
                await door.vote(1, round_)
            await door.vote(2, round_)
            await door.finish()

    asyncio.run(play())


def test_with_too_many_polls_of_one_agent_its_oldest_is_answered(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1)) as door:
            round_ = await door.open_round(1, 0)
            neighbour = asyncio.create_task(door.poll(2, 1, wait_s=1000.0))
            polls: list[asyncio.Task[pb.AwaitRoundReply]] = []
            for _ in range(POLLS_PER_AGENT_MAX + 3):
                polls.append(asyncio.create_task(door.poll(1, 1, wait_s=1000.0)))
                while door.run.coordinator.members[1].calls < len(polls) + 1:
                    await asyncio.sleep(0.005)
            for poll in polls[:3]:
                assert (await poll).state == pb.AwaitRoundReply.STATE_NOT_YET
            assert (await door.status()).agents[0].polls_cut == 3
            for agent in (1, 2):
                await door.vote(agent, round_)
            for poll in (neighbour, *polls[3:]):
                assert (await poll).state == pb.AwaitRoundReply.STATE_ENDED
            await door.finish()

    asyncio.run(play())


def test_the_log_does_not_grow_with_what_an_agent_repeats(caplog: pytest.LogCaptureFixture) -> None:
    log = SparseLog(logging.getLogger("sparse"))
    for _ in range(100_000):
        log.write(logging.WARNING, "refused", "refused somebody")
    log.write(logging.WARNING, "another", "something else")
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:10] == ["refused somebody"] * 10
    assert messages[10] == "refused somebody (number 16 of its kind; not all are logged)"
    assert len(messages) < 30
    assert messages[-1] == "something else"
