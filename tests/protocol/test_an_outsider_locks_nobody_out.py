"""Whoever has no certificate takes nobody's place: not with thousands of connections, held open or opened again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.transport.channels import TlsFiles
from fedpg_server.serving.connections import (
    OTHERS_MAX,
    PENDING_MAX_S,
    PENDING_MIN_S,
    PENDING_PER_ADDRESS,
    PER_OWNER_MAX,
    Caller,
    ConnectionBook,
    Peer,
    connections_of,
    parse_peer,
)
from hypothesis import given
from hypothesis import strategies as st
from support.connection_flood import __file__ as flood_program
from support.protocol import CALL_TIMEOUT_S, Door, idle_federation, make_submission, open_aio_channel, serving
from support.raw_http2 import RawCaller
from support.tls_files import client_credentials, make_identity, write_files

AUTHORITY = make_identity("authority")
SERVER = make_identity("server", AUTHORITY)
OPERATOR = make_identity("operator", AUTHORITY)
AGENTS = {agent: make_identity(f"agent-{agent}", AUTHORITY) for agent in (1, 2, 3)}
FLOOD = 3000
MESSAGE_BYTES = 70_000
ROUNDS = 3
SETTINGS_FRAME = b"\0\0\0\4\0\0\0\0\0"
PRIORITY_FRAME = b"\0\0\5\2\0\0\0\0\3" + b"\0\0\0\0\1"
ATTACKER, MEMBER = "203.0.113.1", "192.0.2.1"


async def status_of(door: Door) -> pb.GetStatusReply:
    """All of the status, which is the operator's."""
    async with open_aio_channel(door.address, client_credentials(AUTHORITY, OPERATOR)) as channel:
        stub = federation_pb2_grpc.FederationStub(channel)
        return await stub.GetStatus(pb.GetStatusRequest(), timeout=CALL_TIMEOUT_S, wait_for_ready=True)


def review(book: ConnectionBook, connected: list[Peer], now_s: float) -> list[Peer]:
    """What is to be closed of connections that have received nothing to speak of."""
    return book.review(dict.fromkeys(connected, 100), now_s)


@contextmanager
def flooded(address: str, count: int = FLOOD, seconds: float = 600.0) -> Iterator[None]:
    """Within this, somebody keeps that many connections open, who has no certificate."""
    port = address.rpartition(":")[2]
    command = [sys.executable, flood_program, port, str(count), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacker:
        try:
            assert attacker.stdout is not None
            assert attacker.stdout.readline() == "open\n"
            yield
            assert attacker.poll() is None, "the attack has ended by itself"
        finally:
            attacker.kill()


async def take_part(door: Door, agent: int, round_number: int) -> None:
    """A member connects for the first time, joins, and votes in a round."""
    async with open_aio_channel(door.address, client_credentials(AUTHORITY, AGENTS[agent])) as channel:
        stub = federation_pb2_grpc.FederationStub(channel)
        joined = await stub.Join(pb.JoinRequest(agent=agent), timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        request = pb.AwaitRoundRequest(run_id=joined.run_id, agent=agent, after_round=round_number - 1, wait_s=20)
        reply = await stub.AwaitRound(request, timeout=CALL_TIMEOUT_S)
        assert reply.round.number == round_number
        verdict = await stub.SubmitUpdate(make_submission(joined.run_id, agent, reply.round), timeout=CALL_TIMEOUT_S)
        assert verdict.verdict == pb.VERDICT_ACCEPTED


def test_members_connect_and_vote_while_an_outsider_holds_thousands_of_connections(tmp_path: Path) -> None:
    async def play() -> None:
        files = write_files(tmp_path / "server", AUTHORITY, SERVER)
        own = client_credentials(AUTHORITY, AGENTS[1])
        async with serving(tmp_path, idle_federation(3, ROUNDS), files, own) as door:
            with flooded(door.address):
                for round_number in range(1, ROUNDS + 1):
                    await asyncio.gather(*(take_part(door, agent, round_number) for agent in AGENTS))
                while not (await status_of(door)).connections_closed:
                    await asyncio.sleep(0.05)
            door.callers.clear()
            records = await door.finish()
        assert [record.accepted for record in records] == [(1, 2, 3)] * ROUNDS

    asyncio.run(play())


def test_a_server_that_comes_back_under_the_attack_goes_on(tmp_path: Path) -> None:
    async def play() -> None:
        files = write_files(tmp_path / "server", AUTHORITY, SERVER)
        own = client_credentials(AUTHORITY, AGENTS[1])
        federation = idle_federation(3, 2)
        async with serving(tmp_path, federation, files, own) as door:
            await asyncio.gather(*(take_part(door, agent, 1) for agent in AGENTS))
            while not door.run.records:
                await asyncio.sleep(0.005)
            address = door.address
        with flooded_before_it_is_back(address):
            async with serving(tmp_path, federation, files, own, listen=address) as door:
                await asyncio.gather(*(take_part(door, agent, 2) for agent in AGENTS))
                assert [record.accepted for record in await door.finish()] == [(1, 2, 3)] * 2

    asyncio.run(play())


@contextmanager
def flooded_before_it_is_back(address: str) -> Iterator[None]:
    """An attack that has begun before the server is back: its connections fail, and are tried again and again."""
    command = [sys.executable, flood_program, address.rpartition(":")[2], str(FLOOD), "600"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as attacker:
        try:
            yield
            assert attacker.poll() is None, "the attack has ended by itself"
        finally:
            attacker.kill()


def test_connections_of_an_outsider_are_closed_in_time_and_counted(tmp_path: Path) -> None:
    async def play() -> None:
        files = write_files(tmp_path / "server", AUTHORITY, SERVER)
        own = client_credentials(AUTHORITY, AGENTS[1])
        async with serving(tmp_path, idle_federation(1, 1), files, own) as door:
            port = int(door.address.rpartition(":")[2])
            await status_of(door)
            with flooded(door.address, count=200, seconds=600.0):
                while (await status_of(door)).connections_closed < 200:
                    await asyncio.sleep(0.05)
            while sum(1 for _ in connections_of(port)) > 2:  # those that we ask over
                await asyncio.sleep(0.05)
            await door.vote(1, await door.open_round(1, 0))
            await door.finish()

    asyncio.run(play())


def test_a_member_keeps_its_newest_connections_and_no_more(tmp_path: Path) -> None:
    async def play() -> None:
        files = write_files(tmp_path / "server", AUTHORITY, SERVER)
        own = client_credentials(AUTHORITY, AGENTS[1])
        async with serving(tmp_path, idle_federation(2, 1), files, own) as door:
            port = int(door.address.rpartition(":")[2])
            channels = [open_aio_channel(door.address, client_credentials(AUTHORITY, AGENTS[2])) for _ in range(20)]
            for channel in channels:
                stub = federation_pb2_grpc.FederationStub(channel)
                await stub.Join(pb.JoinRequest(agent=2), timeout=CALL_TIMEOUT_S)
            while sum(1 for _ in connections_of(port)) > PER_OWNER_MAX + 1:
                await asyncio.sleep(0.05)
            round_ = await door.open_round(1, 0)
            stub = federation_pb2_grpc.FederationStub(channels[-1])
            reply = await stub.SubmitUpdate(make_submission(door.run.run_id, 2, round_), timeout=CALL_TIMEOUT_S)
            assert reply.verdict == pb.VERDICT_ACCEPTED
            await door.vote(1, round_)
            await stub.Leave(pb.LeaveRequest(run_id=door.run.run_id, agent=2), timeout=CALL_TIMEOUT_S)
            await door.finish()
            for channel in channels:
                await channel.close(None)

    asyncio.run(play())


def test_who_has_made_a_call_stays_whatever_others_open() -> None:
    book = ConnectionBook(agents=3, message_bytes=MESSAGE_BYTES)
    member = (MEMBER, 1)
    book.called(member, Caller("agent-1", PER_OWNER_MAX), 0.0)
    crowd = [(ATTACKER, port) for port in range(10_000)]
    for second in range(100):
        doomed = review(book, [member, *crowd], float(second))
        assert member not in doomed
    assert set(doomed) == set(crowd)


def test_a_connection_has_time_for_its_handshake_however_many_there_are() -> None:
    book = ConnectionBook(agents=3, message_bytes=MESSAGE_BYTES)
    crowd = [(ATTACKER, port) for port in range(10_000)]
    member = (ATTACKER, 20_000)  # behind the same address
    review(book, crowd, 0.0)
    assert member not in review(book, [*crowd, member], 1.0)
    assert member not in review(book, [*crowd, member], 1.0 + PENDING_MIN_S - 0.01)
    book.called(member, Caller("agent-1", PER_OWNER_MAX), 1.0 + PENDING_MIN_S)
    assert member not in review(book, [*crowd, member], 1000.0)


def test_a_few_connections_without_a_call_are_left_alone_for_a_while() -> None:
    book = ConnectionBook(agents=3, message_bytes=MESSAGE_BYTES)
    few = [(ATTACKER, port) for port in range(PENDING_PER_ADDRESS)]
    assert review(book, few, 0.0) == []
    assert review(book, few, PENDING_MAX_S - 0.01) == []
    assert set(review(book, few, PENDING_MAX_S)) == set(few)


def test_a_connection_that_floods_is_closed_and_a_busy_one_is_not() -> None:
    book = ConnectionBook(agents=3, message_bytes=MESSAGE_BYTES)
    flooding, busy = (MEMBER, 1), (MEMBER, 2)
    for peer in (flooding, busy):
        book.called(peer, Caller("agent-1", PER_OWNER_MAX), 0.0)
    doomed: set[Peer] = set()
    for second in range(1, 100):
        doomed |= set(book.review({flooding: second * 1_000_000, busy: second * 4 * MESSAGE_BYTES}, float(second)))
    assert doomed == {flooding}


def test_agents_that_share_a_connection_are_not_taken_for_a_flood() -> None:
    book = ConnectionBook(agents=50, message_bytes=MESSAGE_BYTES)
    shared, alone = (MEMBER, 1), (MEMBER, 2)
    book.called(shared, Caller(MEMBER, PER_OWNER_MAX * 50, agents=50), 0.0)  # without TLS, of a process of agents
    book.called(alone, Caller("agent-1", PER_OWNER_MAX), 0.0)
    doomed: set[Peer] = set()
    for second in range(1, 100):
        received = second * 50 * MESSAGE_BYTES  # a message per agent and second
        doomed |= set(book.review({shared: received, alone: received}, float(second)))
    assert doomed == {alone}


@given(
    calls=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 4)), max_size=200),
    opened=st.sets(st.integers(0, 300), max_size=300),
)
def test_what_stays_is_bounded_whatever_is_called(calls: list[tuple[int, int]], opened: set[int]) -> None:
    book = ConnectionBook(agents=2, message_bytes=MESSAGE_BYTES)
    for port, owner in calls:
        limit = OTHERS_MAX if owner == 0 else PER_OWNER_MAX
        book.called((MEMBER, port), Caller(f"agent-{owner}", limit), 0.0)
    connected = [(MEMBER, port) for port in sorted(opened)]
    review(book, connected, 0.0)
    staying = set(connected) - set(review(book, connected, PENDING_MAX_S))
    assert len(staying) <= OTHERS_MAX + 4 * PER_OWNER_MAX


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("ipv4:127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("ipv6:%5B::1%5D:5000", ("::1", 5000)),
        ("ipv6:[::ffff:10.0.0.1]:5000", ("10.0.0.1", 5000)),
        ("unix:/tmp/socket", None),
        ("", None),
    ],
)
def test_the_other_end_is_read_as_grpc_writes_it(text: str, peer: tuple[str, int] | None) -> None:
    assert parse_peer(text) == peer


@pytest.mark.parametrize("frame", [SETTINGS_FRAME, PRIORITY_FRAME], ids=["settings", "priority"])
def test_a_flood_of_frames_ends_with_its_connection(tmp_path: Path, frame: bytes) -> None:
    def flood_until_closed(address: str, tls: TlsFiles) -> None:
        with RawCaller(address, tls) as caller:
            caller.call("Join", pb.JoinRequest(agent=2))
            while not caller.is_closed():
                with suppress(OSError):
                    caller.send(frame * 10_000)

    async def play() -> None:
        files = write_files(tmp_path / "server", AUTHORITY, SERVER)
        own = client_credentials(AUTHORITY, AGENTS[1])
        async with serving(tmp_path, idle_federation(1, 1), files, own) as door:
            tls = write_files(tmp_path / "agent-2", AUTHORITY, AGENTS[2])
            await asyncio.to_thread(flood_until_closed, door.address, tls)
            await door.vote(1, await door.open_round(1, 0))
            await door.finish()

    asyncio.run(play())
