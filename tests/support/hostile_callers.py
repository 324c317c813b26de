"""What an outsider, and a member with a certificate, can do to a server that they reach: each attack lasts a moment."""

from __future__ import annotations

import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.transport.channels import TlsFiles, open_channel
from grpc_health.v1 import health_pb2, health_pb2_grpc
from h2.exceptions import ProtocolError
from support.connection_flood import flood
from support.raw_http2 import RawCaller

MOMENT_S = 1.5
TIMEOUT_S = 5.0
ESCAPES = "\x1b[31m\x1b]0;title\x07\nINFO a line of somebody else's"
SETTINGS_FRAME = b"\0\0\0\4\0\0\0\0\0"
PING_FRAME = b"\0\0\x08\6\0\0\0\0\0" + bytes(8)
PRIORITY_FRAME = b"\0\0\5\2\0\0\0\0\3" + b"\0\0\0\0\1"
HEADERS_WITHOUT_END = b"\0\0\1\1\0\0\0\0\x65\x88"
CONTINUATION = b"\x40\x04name\x05value" * 1000
EXPECTED = (OSError, ProtocolError, grpc.RpcError)
"""What an attacker meets when its connection is closed or its call refused."""


@dataclass(frozen=True)
class Target:
    """A server under attack."""

    address: str
    authority: Path
    """Of the server's certificate, which is not a secret."""
    member: TlsFiles
    """The files of an agent that attacks beside its vote."""
    agent: int
    run_id: str = ""

    @property
    def port(self) -> int:
        """The server's."""
        return int(self.address.rpartition(":")[2])

    def connect(self, window_bytes: int = 65_535) -> RawCaller:
        """A connection of the member's own making."""
        return RawCaller(self.address, self.member, window_bytes)

    @contextmanager
    def stub(self) -> Iterator[federation_pb2_grpc.FederationStub]:
        """The member's, over gRPC."""
        channel = open_channel(self.address, 2**30, self.member)
        try:
            yield federation_pb2_grpc.FederationStub(channel)
        finally:
            channel.close()


Attack = Callable[[Target, float], None]
"""On a server, until a time of the monotonic clock."""


def idle_connections(target: Target, ends_s: float) -> None:
    """Hundreds of connections that say nothing or leave their handshake, opened again when they are closed."""
    flood(target.port, 500, ends_s - time.monotonic())


def handshakes_that_fail(target: Target, ends_s: float) -> None:
    """Without a certificate, without TLS, with garbage, and broken off."""
    context = ssl.create_default_context(cafile=target.authority)
    context.set_alpn_protocols(["h2"])
    while time.monotonic() < ends_s:
        for start in (b"", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01" + bytes(20)):
            with suppress(OSError), socket.create_connection(("127.0.0.1", target.port), TIMEOUT_S) as connection:
                if start:
                    connection.sendall(start)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    with context.wrap_socket(connection, server_hostname="127.0.0.1") as secured:
                        secured.recv(1)


def unread_replies(target: Target, ends_s: float) -> None:
    """Polls without end whose replies are never read."""
    request = pb.AwaitRoundRequest(run_id=target.run_id, agent=target.agent)
    with target.connect(window_bytes=0) as caller:
        while time.monotonic() < ends_s:
            caller.call("AwaitRound", request)


def submissions_without_an_end(target: Target, ends_s: float) -> None:
    """As many as a connection takes, each without its last byte."""
    with target.connect() as caller:
        for _ in range(90):
            caller.begin("SubmitUpdate", 60_000)
        while time.monotonic() < ends_s:
            caller.send_what_fits()


def requests_taken_back(target: Target, ends_s: float) -> None:
    """Calls that are reset as soon as they have begun, thousands a second."""
    with target.connect() as caller:
        while time.monotonic() < ends_s:
            caller.begin_and_reset("SubmitUpdate")


def frames(frame: bytes) -> Attack:
    """The same frame over and over."""

    def attack(target: Target, ends_s: float) -> None:
        with target.connect() as caller:
            caller.call("Join", pb.JoinRequest(agent=target.agent))
            while time.monotonic() < ends_s:
                caller.send(frame * 500)

    return attack


def headers_without_an_end(target: Target, ends_s: float) -> None:
    """Continuations of headers that never end."""
    with target.connect() as caller:
        caller.send(HEADERS_WITHOUT_END)
        while time.monotonic() < ends_s:
            caller.send(len(CONTINUATION).to_bytes(3, "big") + b"\x09\0\0\0\0\x65" + CONTINUATION)


def garbage(target: Target, ends_s: float) -> None:
    """Random bytes in place of frames."""
    rng = random.Random(7)
    while time.monotonic() < ends_s:
        with suppress(OSError), target.connect() as caller:
            for _ in range(20):
                caller.send(rng.randbytes(rng.randint(1, 2000)))


def shape_bombs(target: Target, ends_s: float) -> None:
    """Gradients with endless shapes, and messages of endless fields."""
    tensor = pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[1] * 60_000)
    request = pb.SubmitUpdateRequest(run_id=target.run_id, agent=target.agent, round=1, gradient=tensor)
    fields = b"\x10\x01" * 30_000
    with target.stub() as stub:
        while time.monotonic() < ends_s:
            stub.SubmitUpdate(request, timeout=TIMEOUT_S)
            pb.SubmitUpdateRequest.FromString(request.SerializeToString() + fields)


def words_for_the_log(target: Target, ends_s: float) -> None:
    """Everything that the server logs of callers, with a terminal's orders in it, again and again."""
    with target.stub() as stub:
        number = 0
        while time.monotonic() < ends_s:
            number += 1
            stub.Join(pb.JoinRequest(agent=target.agent, version=f"{ESCAPES} {number}"), timeout=TIMEOUT_S)
            for request in (pb.JoinRequest(agent=number), pb.JoinRequest(agent=0)):
                with suppress(grpc.RpcError):
                    stub.Join(request, timeout=TIMEOUT_S)
            reason = pb.LeaveRequest.REASON_FAILED
            stub.Leave(
                pb.LeaveRequest(run_id=target.run_id, agent=target.agent, reason=reason, detail=ESCAPES * number),
                timeout=TIMEOUT_S,
            )
            stub.SubmitUpdate(pb.SubmitUpdateRequest(agent=target.agent, run_id=ESCAPES), timeout=TIMEOUT_S)
        stub.Join(pb.JoinRequest(agent=target.agent), timeout=TIMEOUT_S)


def questions(target: Target, ends_s: float) -> None:
    """For the status, and polls that are cancelled."""
    poll = pb.AwaitRoundRequest(run_id=target.run_id, agent=target.agent, after_round=2**40, wait_s=1000.0)
    with target.stub() as stub:
        while time.monotonic() < ends_s:
            for call in [stub.AwaitRound.future(poll, timeout=TIMEOUT_S) for _ in range(10)]:
                call.cancel()  # type: ignore[no-untyped-call]
            stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)


def watches(target: Target, ends_s: float) -> None:
    """A hundred streams of the health service."""
    channel = open_channel(target.address, 2**20, target.member)
    try:
        stub = health_pb2_grpc.HealthStub(channel)
        held = [stub.Watch(health_pb2.HealthCheckRequest(service="x" * 1000)) for _ in range(100)]
        while time.monotonic() < ends_s:
            time.sleep(0.05)
        for call in held:
            call.cancel()
    finally:
        channel.close()


OUTSIDERS: Sequence[Attack] = (idle_connections, handshakes_that_fail)
MEMBERS: Sequence[Attack] = (
    unread_replies, submissions_without_an_end, requests_taken_back, frames(SETTINGS_FRAME), frames(PING_FRAME),
    frames(PRIORITY_FRAME), headers_without_an_end, garbage, shape_bombs, words_for_the_log, questions, watches,
)  # fmt: skip


@dataclass
class Siege:
    """Attacks by turns, until it is over. A context manager."""

    target: Target
    attacks: Sequence[Attack]
    begun: list[str] = field(default_factory=list)
    """Which attacks have had their turn, in order."""
    broken: list[BaseException] = field(default_factory=list)
    """Errors of the attackers' own, which must not pass for a defence."""

    def __post_init__(self) -> None:
        """Nothing is attacked yet."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Siege:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """End: when the present attack has ended."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        turn = 0
        while not self._is_over.is_set():
            attack = self.attacks[turn % len(self.attacks)]
            turn += 1
            self.begun.append(attack.__qualname__)
            try:
                with ExitStack() as stack:
                    stack.enter_context(suppress(*EXPECTED))
                    attack(self.target, time.monotonic() + MOMENT_S)
            except BaseException as error:
                self.broken.append(error)
                return
            self._is_over.wait(0.05)  # a server that is away refuses at once
