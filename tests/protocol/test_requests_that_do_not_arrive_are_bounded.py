"""What a member begins to send and does not end, or packs so that it unfolds, takes little memory; the others vote."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.transport import wire
from fedpg_common.transport.protobuf import FIELDS_MAX, TooManyFieldsError
from fedpg_server.protocol.coordinator import Member
from fedpg_server.serving.grpc_log import SparseGrpcLog
from fedpg_server.serving.request_guard import ARRIVING_MAX, STREAMS_MAX
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.memory import resident_bytes
from support.mutations import varint
from support.protocol import (
    CALL_TIMEOUT_S,
    Door,
    idle_federation,
    make_submission,
    open_aio_channel,
    serving,
    wait_until,
)
from support.raw_http2 import RawCaller
from support.tls_files import client_credentials, make_identity, write_files

SIZE = 1_000_000
VECTOR_BYTES = 4 * SIZE
CALLS, CONNECTIONS = 50, 2
SUBMIT = "/fedpg.v1.Federation/SubmitUpdate"
AUTHORITY = make_identity("authority")
SERVER = make_identity("server", AUTHORITY)
AGENTS = {agent: make_identity(f"agent-{agent}", AUTHORITY) for agent in (1, 2)}
BOMB_ENTRIES = VECTOR_BYTES
"""As many as fit into a message, a byte each."""
BOMBS = 20


def submission() -> pb.SubmitUpdateRequest:
    """One with every field."""
    request = make_submission("run-1", 2, pb.Round(number=1, parameters_digest=b"p" * 32))
    request.report.CopyFrom(pb.WorkReport(trajectories=16, loss=-0.5, seconds=1.0))
    return request


def send_until_nothing_fits(callers: list[RawCaller]) -> None:
    """Send as much as the server takes; what it takes later is little."""
    idle = 0
    while idle < 20:
        idle = idle + 1 if sum(caller.send_what_fits() for caller in callers) == 0 else 0


def begin_and_leave(stack: ExitStack, address: str, folder: Path) -> None:
    """Agent 2 begins many submissions over several connections and ends none of them."""
    tls = write_files(folder / "agent-2", AUTHORITY, AGENTS[2])
    callers = [stack.enter_context(RawCaller(address, tls)) for _ in range(CONNECTIONS)]
    for caller in callers:
        for _ in range(CALLS):
            caller.begin("SubmitUpdate", VECTOR_BYTES)
    send_until_nothing_fits(callers)


def test_submissions_that_lack_their_last_byte_take_little_memory(tmp_path: Path) -> None:
    async def play() -> int:
        files = write_files(tmp_path / "server", AUTHORITY, SERVER)
        own = client_credentials(AUTHORITY, AGENTS[1])
        async with serving(tmp_path, idle_federation(2, 1), files, own, size=SIZE) as door:
            round_ = await door.open_round(1, 0)
            before = resident_bytes()
            with ExitStack() as stack:
                await asyncio.to_thread(begin_and_leave, stack, door.address, tmp_path)
                held = resident_bytes() - before
                assert (await door.poll(1, 0)).round == round_
        return held

    held = asyncio.run(play())
    assert held < (ARRIVING_MAX + 12) * VECTOR_BYTES, f"{held / 1e6:.0f} MB"


def shape_bomb(packed: bool) -> bytes:
    """A submission of legal size whose gradient has a shape of millions of entries."""
    request = submission()
    shape = b"\x12" + varint(BOMB_ENTRIES) + b"\x01" * BOMB_ENTRIES if packed else b"\x10\x01" * (BOMB_ENTRIES // 2)
    gradient = request.gradient.SerializeToString() + shape
    request.ClearField("gradient")
    return request.SerializeToString() + b"\x2a" + varint(len(gradient)) + gradient


@pytest.mark.parametrize(
    ("packed", "verdict"), [(True, pb.VERDICT_WRONG_SHAPE), (False, pb.VERDICT_DAMAGED)], ids=["packed", "one by one"]
)
def test_a_shape_of_millions_of_entries_is_refused_before_it_is_unfolded(
    tmp_path: Path, packed: bool, verdict: pb.Verdict.ValueType
) -> None:
    async def play() -> None:
        async with (
            serving(tmp_path, idle_federation(2, 1), size=SIZE) as door,
            open_aio_channel(door.address) as channel,
        ):
            data = shape_bomb(packed)
            submit = channel.unary_unary(SUBMIT, None, pb.SubmitUpdateReply.FromString)
            replies = await asyncio.gather(*(submit(data, timeout=CALL_TIMEOUT_S) for _ in range(BOMBS)))
            assert {reply.verdict for reply in replies} == {verdict}
            assert (await door.status()).agents[1].verdicts[0].count == BOMBS

    assert len(shape_bomb(packed)) < wire.message_bytes_max(SIZE)
    assert not wire.read_submission(shape_bomb(packed)).gradient.shape
    asyncio.run(play())


def test_a_submission_is_read_as_protobuf_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MESSAGE_SLACK_BYTES", -1)  # so that small ones are looked at, too
    rng, intact = random.Random(20211110), submission().SerializeToString()
    read = 0
    for _ in range(20_000):
        data = bytearray(intact)
        for _ in range(rng.randint(0, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            expected = pb.SubmitUpdateRequest.FromString(bytes(data)).SerializeToString()
        except DecodeError:
            with pytest.raises(DecodeError):
                wire.read_submission(bytes(data))
            continue
        assert wire.read_submission(bytes(data)).SerializeToString() == expected
        read += 1
    assert read > 10_000


def test_a_submission_of_too_many_fields_is_not_looked_at_to_the_end() -> None:
    filling = b"\x10\x01" * wire.MESSAGE_SLACK_BYTES
    with pytest.raises(TooManyFieldsError, match=str(FIELDS_MAX)):
        wire.read_submission(submission().SerializeToString() + filling)


def test_a_caller_has_few_streams_at_a_time_and_may_end_one_to_begin_another(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1)) as door, open_aio_channel(door.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(STREAMS_MAX)]
            for watch in watches:
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            code, said = await services(channel)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "at a time" in said
            watches[0].cancel()
            while code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # the server has yet to hear of it
                await asyncio.sleep(0.005)
                code, said = await services(channel)
            assert code is grpc.StatusCode.OK
            assert "fedpg.v1.Federation" in said
            for watch in watches[1:]:
                watch.cancel()

    asyncio.run(play())


async def services(channel: grpc.aio.Channel) -> tuple[grpc.StatusCode, str]:
    """What a server says if it is asked for its services. The reply is read: the call would not end before."""
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    try:
        replies = [reply async for reply in stub.ServerReflectionInfo(one(asked), timeout=CALL_TIMEOUT_S)]
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, str(replies)


async def one(
    request: reflection_pb2.ServerReflectionRequest,
) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    """A stream of one request."""
    yield request


def test_a_watch_whose_request_does_not_come_is_given_up(tmp_path: Path) -> None:
    async def play() -> None:
        async with (
            serving(tmp_path, idle_federation(2, 1), arrival_max_s=0.5) as door,
            open_aio_channel(door.address) as channel,
        ):
            call = channel.stream_stream("/grpc.health.v1.Health/Watch", None, None)(None, timeout=CALL_TIMEOUT_S)
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(play())


def has_called(member: Member, before: int) -> bool:
    """Whether it has made a call since it had made so many."""
    return member.calls > before


def test_callers_that_hang_up_leave_no_lines_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def hang_up_on_replies(door: Door) -> None:
        member = door.run.coordinator.members[2]
        for _ in range(20):
            done = member.calls
            with RawCaller(door.address, window_bytes=0) as caller:
                for _ in range(CALLS):
                    caller.call("Join", pb.JoinRequest(agent=2))
                # A server that is slow may never see the calls of a connection that is closed with a reply unread.
                wait_until(partial(has_called, member, done))

    async def play() -> None:
        async with serving(tmp_path, idle_federation(2, 1)) as door:
            await asyncio.to_thread(hang_up_on_replies, door)
            for agent in (1, 2):
                await door.vote(agent, await door.open_round(agent, 0))
            await door.finish()

    asyncio.run(play())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_what_grpc_logs_does_not_grow_with_what_callers_repeat(caplog: pytest.LogCaptureFixture) -> None:
    sparse, grpc_log = SparseGrpcLog(), logging.getLogger("grpc._cython.cygrpc")
    sparse.start()
    try:
        for number in range(100_000):
            grpc_log.error("Unexpected [%s] raised by servicer method", number)
    finally:
        sparse.stop()
    assert 10 <= len(caplog.records) < 30
    grpc_log.error("Unexpected [%s] raised by servicer method", "the last")
    assert caplog.records[-1].getMessage() == "Unexpected [the last] raised by servicer method"
