"""Who was filtered, and by what, is told to the operator alone; an agent is told its own row and where the round is."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import grpc
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.transport.channels import TlsFiles, is_loopback_peer
from fedpg_lab.deploy.certificates import make_certificates
from fedpg_lab.local.status import fetch_status, render
from fedpg_server.serving.viewers import Viewer, status_for, viewer_of
from rich.console import Console
from support.protocol import CALL_TIMEOUT_S, idle_federation, serving
from support.tls_files import client_credentials, make_identity, write_files

AUTHORITY = make_identity("authority")
NAMES = ("server", "operator", "agent-1", "agent-2", "agent-3", "agent-9", "mallory", "Operator", "operator-2")
IDENTITIES = {name: make_identity(name, AUTHORITY) for name in NAMES}
EVERYBODY_MAY_KNOW = {
    "run_id", "task", "phase", "message", "round", "trajectories", "trajectories_target", "quorum", "deadline_in_s",
    "uptime_s", "is_partial",
}  # fmt: skip


def asked_as(folder: Path, names: Sequence[str]) -> dict[str, pb.GetStatusReply]:
    """The status in a round's middle, asked over mutual TLS with each of these certificates."""

    @cache
    def files(name: str) -> TlsFiles:
        return write_files(folder / name, AUTHORITY, IDENTITIES[name])

    async def play() -> dict[str, pb.GetStatusReply]:
        client = client_credentials(AUTHORITY, IDENTITIES["agent-1"])
        async with serving(folder, idle_federation(3, 2), files("server"), client) as door:
            round_ = await door.open_round(1, 0)
            await door.vote(1, round_)
            return {
                name: await asyncio.to_thread(fetch_status, door.address, files(name), CALL_TIMEOUT_S) for name in names
            }

    return asyncio.run(play())


def fields_of(status: pb.GetStatusReply) -> set[str]:
    """Which fields say something."""
    return {field.name for field, _ in status.ListFields()}


@pytest.mark.parametrize("name", ["operator", "server"])
def test_the_operator_and_the_server_itself_are_told_everything(tmp_path: Path, name: str) -> None:
    status = asked_as(tmp_path, [name])[name]
    assert not status.is_partial
    assert [row.agent for row in status.agents] == [1, 2, 3]
    assert [row.voted for row in status.agents] == [True, False, False]
    assert status.algorithm


@pytest.mark.parametrize("index", [1, 2])
def test_an_agent_is_told_its_own_row_and_where_the_round_is(tmp_path: Path, index: int) -> None:
    status = asked_as(tmp_path, [f"agent-{index}"])[f"agent-{index}"]
    assert fields_of(status) <= EVERYBODY_MAY_KNOW | {"agents"}
    assert [(row.agent, row.voted) for row in status.agents] == [(index, index == 1)]
    assert status.message == "1 of 3 agents have joined"
    assert (status.round, status.quorum, status.phase) == (1, 2, pb.PHASE_JOINING)


@pytest.mark.parametrize("name", ["agent-9", "mallory", "Operator", "operator-2"])
def test_another_certificate_is_told_where_the_round_is(tmp_path: Path, name: str) -> None:
    status = asked_as(tmp_path, [name])[name]
    assert fields_of(status) <= EVERYBODY_MAY_KNOW
    assert status.is_partial
    assert status.round == 1


def test_the_folder_of_the_operator_that_fedpg_certs_makes_is_enough(tmp_path: Path) -> None:
    certificates = tmp_path / "certs"
    make_certificates(certificates, 3, ["127.0.0.1"], 30, datetime.datetime.now(datetime.UTC))

    def files(name: str) -> TlsFiles:
        folder = certificates / name
        return TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")

    async def play() -> list[pb.GetStatusReply]:
        authority, certificate, key = files("agent-1").read()
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        async with serving(tmp_path, idle_federation(3, 2), files("server"), credentials) as door:
            await door.open_round(1, 0)
            return [
                await asyncio.to_thread(fetch_status, door.address, files(name), CALL_TIMEOUT_S)
                for name in ("operator", "agent-1")
            ]

    operator, agent = asyncio.run(play())
    assert len(operator.agents) == 3
    assert [row.agent for row in agent.agents] == [1]


def test_without_tls_this_machine_is_the_operators(tmp_path: Path) -> None:
    async def play() -> pb.GetStatusReply:
        async with serving(tmp_path, idle_federation(3, 2)) as door:
            await door.open_round(1, 0)
            return await door.status()

    status = asyncio.run(play())
    assert not status.is_partial
    assert len(status.agents) == 3


PEERS = {
    "ipv4:127.0.0.1:4711": True,
    "ipv4:127.8.9.1:4711": True,
    "ipv6:%5B::1%5D:4711": True,
    "ipv6:[::1]:4711": True,
    "ipv6:%5B::ffff:127.0.0.1%5D:4711": True,
    "unix:/run/fedpg.sock": True,
    "unix:": True,
    "ipv4:192.0.2.1:4711": False,
    "ipv4:10.0.0.1:127": False,
    "ipv6:%5B2001:db8::1%5D:4711": False,
    "ipv6:%5B::ffff:192.0.2.1%5D:4711": False,
    "ipv4:1270.0.1:4711": False,
    "localhost:4711": False,
    "": False,
}


@pytest.mark.parametrize("peer", PEERS)
def test_a_caller_from_another_machine_without_tls_is_not_the_operator(peer: str) -> None:
    assert is_loopback_peer(peer) is PEERS[peer]
    assert viewer_of(peer, None, authenticated=False) == Viewer(is_operator=PEERS[peer])
    # With TLS, the certificate counts and not the address.
    assert viewer_of(peer, "agent-2", authenticated=True) == Viewer(agent=2)
    assert viewer_of(peer, "operator", authenticated=True) == Viewer(is_operator=True)
    assert viewer_of(peer, None, authenticated=True) == Viewer()


def whole_status(phase: pb.Phase.ValueType = pb.PHASE_COLLECTING) -> pb.GetStatusReply:
    """A status in which every field says something."""
    row = pb.AgentStatus
    return pb.GetStatusReply(
        run_id="run-1", task="CartPole-v1", algorithm="fedpg-br", seed=7, phase=phase,
        message="waiting for agents 2, 3", round=9, trajectories=128, trajectories_target=5000, quorum=2,
        deadline_in_s=3.0, environment_steps=10, uptime_s=4.0, intrusions=1, unreadable=1,
        latest=pb.RoundSummary(round=8, rule="R1", radius=0.1, accepted=[1], filtered=[2], parameters_digest=b"x"),
        agents=[
            row(agent=index, presence=row.PRESENCE_JOINED, voted=index == 1, rounds_accepted=5, rounds_filtered=3)
            for index in (1, 2, 3)
        ],
    )  # fmt: skip


@pytest.mark.parametrize("viewer", [Viewer(), Viewer(agent=2), Viewer(agent=4)])
@pytest.mark.parametrize("phase", list(pb.Phase.values()))
def test_what_the_filter_decides_is_in_no_field_of_a_partial_status(phase: pb.Phase.ValueType, viewer: Viewer) -> None:
    told = status_for(viewer, whole_status(phase))
    assert fields_of(told) <= EVERYBODY_MAY_KNOW | {"agents"}
    assert "2, 3" not in told.message
    for row in told.agents:
        assert row.agent == viewer.agent
        assert (row.rounds_accepted, row.rounds_filtered) == (0, 0)


def test_a_partial_status_says_so_and_shows_nothing_that_it_does_not_know() -> None:
    def shown(viewer: Viewer) -> str:
        console = Console(width=200, color_system=None)
        with console.capture() as capture:
            console.print(render(status_for(viewer, whole_status())))
        return capture.get()

    stranger = shown(Viewer())
    assert "are for the operator" in stranger
    assert "1 of 3 agents have submitted" in stranger
    for secret in ("seed", "R1", "filtered 1", "return 0"):
        assert secret not in stranger
    row = next(line for line in shown(Viewer(agent=2)).splitlines() if line.startswith("    2 "))
    assert row.split()[-4:] == ["-", "-", "-", "0"]
    assert "seed 7" in shown(Viewer(is_operator=True))
