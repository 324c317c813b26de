"""A certificate that the authority has revoked is refused from its next call on; another one takes its place."""

from __future__ import annotations

import asyncio
import datetime
import os
from pathlib import Path
from typing import Any

import fedpg_server.serving.revocation
import grpc
import pytest
from cryptography import x509
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.transport.channels import TlsFiles, tls_files
from fedpg_lab.deploy.certificates import make_certificates
from fedpg_server.serving.request_guard import REVOKED
from fedpg_server.serving.revocation import RevocationList
from support.protocol import CALL_TIMEOUT_S, Door, idle_federation, make_submission, open_aio_channel, serving

NOW = datetime.datetime.now(datetime.UTC)


def make(folder: Path, agents: int = 2, **options: Any) -> list[str]:
    """As `fedpg certs` does. Returns what was made."""
    return make_certificates(folder, agents, ["127.0.0.1"], 365, NOW, **options)


def files_of(folder: Path) -> TlsFiles:
    """A participant's files."""
    files = tls_files(folder)
    assert files is not None
    return files


def credentials(folder: Path) -> grpc.ChannelCredentials:
    """A participant's, as they are now."""
    authority, certificate, key = files_of(folder).read()
    return grpc.ssl_channel_credentials(authority, key, certificate)


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A federation's certificates."""
    folder = tmp_path / "certs"
    make(folder)
    return folder


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedpg_server.serving.revocation, "LOOK_EVERY_S", 0.02)


async def join(address: str, agent: int, given: grpc.ChannelCredentials) -> tuple[grpc.StatusCode, str]:
    """How joining over a connection of its own ends."""
    async with open_aio_channel(address, given) as channel:
        call = federation_pb2_grpc.FederationStub(channel).Join(pb.JoinRequest(agent=agent), timeout=CALL_TIMEOUT_S)
        return await call.code(), await call.details() or ""


async def intrusions(door: Door, certs: Path) -> int:
    """How many calls of strangers the operator is told of."""
    async with open_aio_channel(door.address, credentials(certs / "operator")) as channel:
        stub = federation_pb2_grpc.FederationStub(channel)
        return (await stub.GetStatus(pb.GetStatusRequest(), timeout=CALL_TIMEOUT_S)).intrusions


def test_a_server_that_runs_takes_up_the_list(certs: Path, tmp_path: Path) -> None:
    async def play() -> None:
        server, stolen = files_of(certs / "server"), credentials(certs / "agent-2")
        async with (
            serving(tmp_path, idle_federation(2, 1), server, credentials(certs / "agent-1")) as door,
            open_aio_channel(door.address, stolen) as channel,
        ):
            stub = federation_pb2_grpc.FederationStub(channel)
            await stub.Join(pb.JoinRequest(agent=2), timeout=CALL_TIMEOUT_S)
            assert await asyncio.to_thread(make, certs, revoke=["agent-2"]) == ["agent-2"]
            while (await join(door.address, 2, stolen))[0] is grpc.StatusCode.OK:
                await asyncio.sleep(0.01)
            assert await join(door.address, 2, stolen) == (grpc.StatusCode.UNAUTHENTICATED, REVOKED)
            known = stub.Join(pb.JoinRequest(agent=2), timeout=CALL_TIMEOUT_S)  # over the connection that it has
            assert await known.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await intrusions(door, certs) >= 2
            round_ = await door.open_round(1, 0)
            await door.vote(1, round_)
            async with open_aio_channel(door.address, credentials(certs / "agent-2")) as successor:
                stub = federation_pb2_grpc.FederationStub(successor)
                vote = make_submission(door.run.run_id, 2, round_)
                reply = await stub.SubmitUpdate(vote, timeout=CALL_TIMEOUT_S)
                assert reply.verdict == pb.VERDICT_ACCEPTED
                await stub.Leave(pb.LeaveRequest(run_id=door.run.run_id, agent=2), timeout=CALL_TIMEOUT_S)
            assert [record.accepted for record in await door.finish()] == [(1, 2)]

    asyncio.run(play())


def test_a_server_that_starts_heeds_the_list_for_every_service(certs: Path, tmp_path: Path) -> None:
    stolen = credentials(certs / "operator")
    make(certs, revoke=["operator"])

    async def play() -> None:
        server = files_of(certs / "server")
        async with (
            serving(tmp_path, idle_federation(1, 1), server, credentials(certs / "agent-1")) as door,
            open_aio_channel(door.address, stolen) as channel,
        ):
            for method in (
                "/fedpg.v1.Federation/GetStatus",
                "/grpc.health.v1.Health/Check",
                "/grpc.health.v1.Health/Watch",
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            ):
                call = channel.stream_stream(method, None, None)(None, timeout=CALL_TIMEOUT_S)
                assert await call.code() is grpc.StatusCode.UNAUTHENTICATED, method
            assert await intrusions(door, certs) >= 1
            await door.vote(1, await door.open_round(1, 0))
            await door.finish()

    asyncio.run(play())


def revoked_serials(path: Path) -> set[int]:
    """What a list has."""
    return {entry.serial_number for entry in x509.load_pem_x509_crl(path.read_bytes())}


def serial(folder: Path) -> int:
    """Of a participant's certificate."""
    return x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes()).serial_number


def test_the_list_grows_and_is_kept_beside_the_authority(certs: Path) -> None:
    first = serial(certs / "agent-1")
    make(certs, revoke=["agent-1"])
    second, operator = serial(certs / "agent-1"), serial(certs / "operator")
    assert second != first
    assert make(certs, revoke=["agent-1", "operator"]) == ["operator", "agent-1"]
    for folder in ("server", "authority"):
        assert revoked_serials(certs / folder / "crl.pem") == {first, second, operator}
    (certs / "server" / "crl.pem").unlink()
    assert make(certs) == []
    assert revoked_serials(certs / "server" / "crl.pem") == {first, second, operator}


def test_an_agent_that_is_no_more_is_revoked_without_a_successor(certs: Path) -> None:
    gone = serial(certs / "agent-2")
    assert make(certs, agents=1, revoke=["agent-2"]) == []
    assert revoked_serials(certs / "server" / "crl.pem") == {gone}
    assert make(certs, agents=2) == ["agent-2"]
    assert serial(certs / "agent-2") != gone


def test_nothing_is_revoked_without_the_authoritys_key(certs: Path) -> None:
    before = serial(certs / "agent-1")
    (certs / "authority" / "ca.key").rename(certs.parent / "ca.key")
    with pytest.raises(StorageError, match="the authority's key is needed"):
        make(certs, revoke=["agent-1"])
    assert serial(certs / "agent-1") == before
    assert not (certs / "server" / "crl.pem").exists()


def test_a_new_authority_has_an_empty_list(certs: Path) -> None:
    make(certs, revoke=["agent-1"])
    make(certs, new_authority=True)
    assert not list(certs.glob("*/crl.pem"))
    assert len(RevocationList(files_of(certs / "server"))) == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"revoke": ["server"]}, "agents do not ask"),
        ({"revoke": ["authority"]}, "no certificate to revoke"),
        ({"revoke": ["../agent-1"]}, "no certificate to revoke"),
        ({"revoke": ["agent-01"]}, "no certificate to revoke"),
        ({"revoke": ["agent-1"], "new_authority": True}, "exclude each other"),
    ],
)
def test_what_cannot_be_revoked_is_refused_with_one_sentence(certs: Path, options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        make(certs, **options)


def test_a_certificate_that_is_not_there_is_not_revoked(certs: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no .*agent-9/cert\.pem to revoke"):
        make(certs, revoke=["agent-9"])


def test_a_list_that_cannot_be_used_is_refused_at_the_start(certs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make(other)
    make(other, revoke=["agent-1"])
    path = certs / "server" / "crl.pem"
    path.write_bytes((other / "server" / "crl.pem").read_bytes())
    with pytest.raises(UsageError, match="not a revocation list of the authority"):
        RevocationList(files_of(certs / "server"))
    path.write_text("garbage")
    with pytest.raises(UsageError, match="not a revocation list in PEM"):
        RevocationList(files_of(certs / "server"))
    with pytest.raises(StorageError, match="not a revocation list in PEM"):
        make(certs)


def test_a_list_that_is_damaged_or_removed_later_revokes_what_it_did(
    certs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stolen = (certs / "agent-1" / "cert.pem").read_bytes()
    make(certs, revoke=["agent-1"])
    revoked = RevocationList(files_of(certs / "server"))
    path = certs / "server" / "crl.pem"
    path.write_text("garbage")
    revoked.refresh()
    assert revoked.has(stolen)
    assert "stay so" in caplog.text
    os.remove(path)
    for _ in range(100):
        revoked.refresh()
    assert revoked.has(stolen)
    assert caplog.text.count("is gone") == 1
