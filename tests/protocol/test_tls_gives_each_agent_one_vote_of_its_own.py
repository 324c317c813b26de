"""With TLS, the certificate says who calls: nobody votes for another, and nobody without a certificate gets in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_client.calls import FederationCalls
from fedpg_client.retry import Caller, ServerRefusedError
from fedpg_common.errors import RefusedError, UnreachableError, UsageError
from fedpg_common.transport.channels import TlsFiles, agent_of_name, is_loopback, tls_files
from fedpg_server.server import ServerOptions, check_options
from support.protocol import CALL_TIMEOUT_S, Door, idle_federation, make_submission, open_aio_channel, serving
from support.tls_files import Identity, client_credentials, make_identity, write_files

AUTHORITY = make_identity("authority")
NAMESAKE = make_identity("authority")
"""Another authority that has the same name."""
OTHER_AUTHORITY = make_identity("other authority")
SERVER = make_identity("server", AUTHORITY)
OPERATOR = make_identity("operator", AUTHORITY)
AGENT_1 = make_identity("agent-1", AUTHORITY)
AGENT_2 = make_identity("agent-2", AUTHORITY)


@asynccontextmanager
async def secured(folder: Path, listen: str = "127.0.0.1:0") -> AsyncIterator[Door]:
    """A federation of two behind TLS; the door's own calls come from agent 1."""
    files = write_files(folder / "server", AUTHORITY, SERVER)
    async with serving(folder, idle_federation(2, 1), files, client_credentials(AUTHORITY, AGENT_1), listen) as door:
        yield door


@asynccontextmanager
async def calling_as(
    door: Door, identity: Identity | None, authority: Identity = AUTHORITY
) -> AsyncIterator[federation_pb2_grpc.FederationAsyncStub]:
    """Another caller's line to the same server."""
    async with open_aio_channel(door.address, client_credentials(authority, identity)) as channel:
        yield federation_pb2_grpc.FederationStub(channel)


async def failure(call: grpc.aio.UnaryUnaryCall[object, object]) -> tuple[grpc.StatusCode, str]:
    """The status with which a call must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def finish(door: Door, round_: pb.Round) -> None:
    """Both agents vote, each with its own certificate, and the run ends."""
    await door.vote(1, round_)
    async with calling_as(door, AGENT_2) as second:
        reply = await second.SubmitUpdate(make_submission(door.run.run_id, 2, round_), timeout=CALL_TIMEOUT_S)
        assert reply.verdict == pb.VERDICT_ACCEPTED
        await second.Leave(pb.LeaveRequest(run_id=door.run.run_id, agent=2), timeout=CALL_TIMEOUT_S)
        records = await door.finish()
    assert records[0].accepted == (1, 2)


def test_nobody_acts_for_another(tmp_path: Path) -> None:
    async def play() -> None:
        async with secured(tmp_path) as door, calling_as(door, AGENT_2) as second:
            round_ = await door.open_round(1, 0)
            run_id = door.run.run_id
            for call in (
                second.Join(pb.JoinRequest(agent=1), timeout=CALL_TIMEOUT_S),
                second.AwaitRound(pb.AwaitRoundRequest(run_id=run_id, agent=1), timeout=CALL_TIMEOUT_S),
                second.SubmitUpdate(make_submission(run_id, 1, round_), timeout=CALL_TIMEOUT_S),
                second.Leave(pb.LeaveRequest(run_id=run_id, agent=1), timeout=CALL_TIMEOUT_S),
            ):
                code, details = await failure(call)  # type: ignore[arg-type]
                assert code is grpc.StatusCode.PERMISSION_DENIED
                assert details == "the certificate is agent 2's, the message agent 1's"
            async with calling_as(door, OPERATOR) as operator:
                status = await operator.GetStatus(pb.GetStatusRequest(), timeout=CALL_TIMEOUT_S)
                assert status.intrusions == 4
            assert not door.run.coordinator.votes
            await finish(door, round_)

    asyncio.run(play())


def test_a_certificate_for_an_agent_that_the_federation_does_not_have_gets_in_nowhere(tmp_path: Path) -> None:
    async def play() -> None:
        async with secured(tmp_path) as door, calling_as(door, make_identity("agent-99", AUTHORITY)) as stranger:
            round_ = await door.open_round(1, 0)
            code, details = await failure(stranger.Join(pb.JoinRequest(agent=99), timeout=CALL_TIMEOUT_S))  # type: ignore[arg-type]
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "agent 99 is not in this federation" in details
            submission = make_submission(door.run.run_id, 99, round_)
            reply = await stranger.SubmitUpdate(submission, timeout=CALL_TIMEOUT_S)
            assert reply.verdict == pb.VERDICT_NOT_A_MEMBER
            await finish(door, round_)

    asyncio.run(play())


@pytest.mark.parametrize("name", ["mallory", "agent-", "agent-0", "agent-1x", "Agent-1", "agent-١", "server"])
def test_a_certificate_that_names_no_agent_is_not_authenticated(tmp_path: Path, name: str) -> None:
    async def play() -> None:
        async with secured(tmp_path) as door, calling_as(door, make_identity(name, AUTHORITY)) as stranger:
            round_ = await door.open_round(1, 0)
            submission = make_submission(door.run.run_id, 1, round_)
            code, details = await failure(stranger.SubmitUpdate(submission, timeout=CALL_TIMEOUT_S))  # type: ignore[arg-type]
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert "does not name an agent" in details
            await finish(door, round_)

    asyncio.run(play())


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: make_identity("agent-1", OTHER_AUTHORITY),
        lambda: make_identity("agent-1", AUTHORITY, expired=True),
        lambda: make_identity("agent-1"),
    ],
    ids=["none", "by another authority", "expired", "signed by itself"],
)
def test_without_a_valid_certificate_there_is_no_connection(
    tmp_path: Path, make: Callable[[], Identity | None]
) -> None:
    async def play() -> None:
        async with secured(tmp_path) as door, calling_as(door, make()) as stranger:
            code, _ = await failure(stranger.Join(pb.JoinRequest(agent=1), timeout=CALL_TIMEOUT_S))  # type: ignore[arg-type]
            assert code is grpc.StatusCode.UNAVAILABLE
            await finish(door, await door.open_round(1, 0))

    asyncio.run(play())


def test_plain_text_does_not_reach_a_server_with_tls(tmp_path: Path) -> None:
    async def play() -> None:
        async with secured(tmp_path) as door, open_aio_channel(door.address) as channel:
            stub = federation_pb2_grpc.FederationStub(channel)
            code, _ = await failure(stub.Join(pb.JoinRequest(agent=1), timeout=CALL_TIMEOUT_S))  # type: ignore[arg-type]
            assert code is grpc.StatusCode.UNAVAILABLE
            await finish(door, await door.open_round(1, 0))

    asyncio.run(play())


def joining(address: str, files: TlsFiles, patience_s: float = 0.0) -> pb.JoinReply:
    """What an agent's own line to the server makes of it."""
    caller = Caller(address, np.random.default_rng(0), threading.Event())
    calls = FederationCalls(1, caller, files, connect_patience_s=patience_s, patience_s=patience_s)
    try:
        return calls.join()
    finally:
        calls.close()


@pytest.mark.parametrize("authority", [NAMESAKE, OTHER_AUTHORITY], ids=["of the same name", "of another name"])
def test_the_agent_refuses_a_server_that_its_authority_has_not_signed_at_once(
    tmp_path: Path, authority: Identity
) -> None:
    async def play() -> None:
        async with secured(tmp_path) as door:
            mistaken = write_files(tmp_path / "agent", authority, AGENT_1)
            with pytest.raises(ServerRefusedError, match=r"(?i)certificate"):
                await asyncio.to_thread(joining, door.address, mistaken, 1000.0)

    asyncio.run(play())


def test_the_agent_tells_that_its_certificate_may_be_the_reason(tmp_path: Path) -> None:
    async def play() -> None:
        async with secured(tmp_path) as door:
            files = write_files(tmp_path / "agent", AUTHORITY, make_identity("agent-1", OTHER_AUTHORITY))
            with pytest.raises(UnreachableError, match="does not accept this agent's certificate"):
                await asyncio.to_thread(joining, door.address, files)
            good = write_files(tmp_path / "good", AUTHORITY, AGENT_1)
            assert (await asyncio.to_thread(joining, door.address, good)).agents == 2

    asyncio.run(play())


def test_the_agent_refuses_a_server_that_answers_under_another_name_at_once(tmp_path: Path) -> None:
    async def play() -> None:
        async with secured(tmp_path, "0.0.0.0:0") as door:
            files = write_files(tmp_path / "agent", AUTHORITY, AGENT_1)
            port = door.address.rpartition(":")[2]
            with pytest.raises(ServerRefusedError, match="is for another host name"):
                await asyncio.to_thread(joining, f"127.0.0.2:{port}", files, 1000.0)

    asyncio.run(play())


def test_an_agent_with_anothers_certificate_is_refused_at_once(tmp_path: Path) -> None:
    async def play() -> None:
        async with secured(tmp_path) as door:
            files = write_files(tmp_path / "agent", AUTHORITY, AGENT_2)
            with pytest.raises(RefusedError, match="the certificate is agent 2's, the message agent 1's"):
                await asyncio.to_thread(joining, door.address, files, 1000.0)

    asyncio.run(play())


def test_unusable_files_are_named_before_anything_is_sent(tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    files = write_files(folder, AUTHORITY, AGENT_1)
    assert tls_files(folder) == files
    assert tls_files(None) is None
    for path, content, named in (
        (files.authority, b"no certificate", "ca.pem"),
        (files.certificate, b"no certificate", "cert.pem"),
        (files.key, b"no key", "key.pem"),
        (files.key, AGENT_2.key_pem, "the key of another certificate"),
        (files.certificate, make_identity("agent-1", AUTHORITY, expired=True).certificate_pem, "key.pem"),
    ):
        before = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(UsageError, match=named):
            tls_files(folder)
        path.write_bytes(before)
    expired = write_files(tmp_path / "expired", AUTHORITY, make_identity("agent-1", AUTHORITY, expired=True))
    with pytest.raises(UsageError, match=r"cert\.pem has expired"):
        expired.read()
    files.key.unlink()
    with pytest.raises(UsageError, match=r"key\.pem cannot be read"):
        tls_files(folder)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:50051", "[::]:50051", "192.0.2.1:50051", "example.org:1", "127.evil.org:1"]
)
def test_without_tls_a_server_stays_on_loopback_unless_told(tmp_path: Path, address: str) -> None:
    with pytest.raises(UsageError, match="--insecure"):
        check_options(ServerOptions(tmp_path, address))
    check_options(ServerOptions(tmp_path, address, insecure=True))
    check_options(ServerOptions(tmp_path, address, tls=TlsFiles(tmp_path, tmp_path, tmp_path)))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:50051", "[::1]:50051", "127.0.0.2:1"])
def test_loopback_needs_no_tls(tmp_path: Path, address: str) -> None:
    assert is_loopback(address)
    check_options(ServerOptions(tmp_path, address))


@pytest.mark.parametrize("address", ["", "localhost", ":50051", "localhost:", "localhost:x", "localhost:65536", "a:-1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        is_loopback(address)


def test_names_of_agents() -> None:
    assert [agent_of_name(f"agent-{index}") for index in (1, 9, 10_000)] == [1, 9, 10_000]
    assert agent_of_name("agent-00") is None
