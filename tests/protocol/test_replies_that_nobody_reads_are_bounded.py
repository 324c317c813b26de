"""A member that asks and never reads holds few replies, and not for long; the others vote meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import fedpg_server.serving.request_guard
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_server.serving.request_guard import UNREAD_REPLIES_MAX
from support.memory import resident_bytes
from support.protocol import CALL_TIMEOUT_S, Door, idle_federation, open_aio_channel, serving
from support.raw_http2 import RawCaller
from support.tls_files import client_credentials, make_identity, write_files

SIZE = 1_000_000
AUTHORITY = make_identity("authority")
SERVER = make_identity("server", AUTHORITY)
OPERATOR = make_identity("operator", AUTHORITY)
AGENTS = {agent: make_identity(f"agent-{agent}", AUTHORITY) for agent in (1, 2)}
CALLS = 50


async def status_of(door: Door) -> pb.GetStatusReply:
    """All of the status, which is the operator's."""
    async with open_aio_channel(door.address, client_credentials(AUTHORITY, OPERATOR)) as channel:
        stub = federation_pb2_grpc.FederationStub(channel)
        return await stub.GetStatus(pb.GetStatusRequest(), timeout=CALL_TIMEOUT_S, wait_for_ready=True)


async def all_closed(callers: list[RawCaller]) -> None:
    """Wait until the server has closed these connections."""
    for caller in callers:
        while not await asyncio.to_thread(caller.is_closed):
            await asyncio.sleep(0.01)


def ask(stack: ExitStack, door: Door, folder: Path, connections: int) -> list[RawCaller]:
    """Agent 2 asks for the round many times over several connections, and reads nothing."""
    tls = write_files(folder / "agent-2", AUTHORITY, AGENTS[2])
    callers = [stack.enter_context(RawCaller(door.address, tls, window_bytes=0)) for _ in range(connections)]
    request = pb.AwaitRoundRequest(run_id=door.run.run_id, agent=2, after_round=0)
    for caller in callers:
        for _ in range(CALLS):
            try:
                caller.call("AwaitRound", request)
            except OSError:  # closed already
                break
    return callers


def test_the_connections_of_a_member_with_too_many_unread_replies_are_closed(tmp_path: Path) -> None:
    async def play() -> None:
        files = write_files(tmp_path / "server", AUTHORITY, SERVER)
        own = client_credentials(AUTHORITY, AGENTS[1])
        async with serving(tmp_path, idle_federation(2, 1), files, own, size=SIZE) as door:
            round_ = await door.open_round(1, 0)
            before = resident_bytes()
            with ExitStack() as stack:
                callers = await asyncio.to_thread(ask, stack, door, tmp_path, 4)
                await all_closed(callers)
                held = resident_bytes() - before
            assert (await status_of(door)).unreadable > 0
            assert (await door.poll(1, 0)).round == round_
        assert held < (UNREAD_REPLIES_MAX + 8) * 4 * SIZE, f"{held / 1e6:.0f} MB"

    asyncio.run(play())


def test_one_reply_that_nobody_reads_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedpg_server.serving.request_guard, "READ_MAX_S", 0.2)

    async def play() -> None:
        files = write_files(tmp_path / "server", AUTHORITY, SERVER)
        own = client_credentials(AUTHORITY, AGENTS[1])
        async with serving(tmp_path, idle_federation(2, 1), files, own, size=SIZE) as door:
            round_ = await door.open_round(1, 0)
            tls = write_files(tmp_path / "agent-2", AUTHORITY, AGENTS[2])
            request = pb.AwaitRoundRequest(run_id=door.run.run_id, agent=2, after_round=0)
            caller = await asyncio.to_thread(RawCaller, door.address, tls, 0)
            with caller:
                caller.call("AwaitRound", request)
                await all_closed([caller])
            assert (await status_of(door)).unreadable == 1
            assert (await door.poll(1, 0)).round == round_

    asyncio.run(play())


def test_many_who_read_get_their_replies(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(60, 1), size=SIZE) as door:
            replies = await asyncio.gather(*(door.poll(agent, 0, wait_s=20.0) for agent in range(1, 61)))
            assert {reply.round.number for reply in replies} == {1}
            assert (await door.status()).connections_closed == 0

    asyncio.run(play())
