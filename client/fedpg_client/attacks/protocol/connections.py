"""Attacks that lie in connections and calls. Every loop is bounded in rate and in what it holds open."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import grpc
import numpy as np
from fedpg.v1 import federation_pb2 as pb
from fedpg.v1 import federation_pb2_grpc
from fedpg_common.transport.channels import parse_address

from fedpg_client.attacks.protocol.base import AttackerCalls, ProtocolAttack

CONNECT_TIMEOUT_S = 1.0
SUBMIT_METHOD = "/fedpg.v1.Federation/SubmitUpdate"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""With which a client begins HTTP/2."""

LORIS_STREAMS = 32
LORIS_CONNECTIONS = 8
LORIS_EVERY_S = 0.2

GARBAGE_EVERY_S = 0.05
GARBAGE_BYTES_MAX = 4096

FLOOD_THREADS = 4
FLOOD_EVERY_S = 0.01
"""Of one thread: 400 calls a second in all, at most."""
FLOOD_IN_FLIGHT = 32
"""Calls under way of one thread."""
FLOOD_TIMEOUT_S = 10.0

log = logging.getLogger(__name__)


class SlowLoris(ProtocolAttack):
    """Never votes; holds 32 calls open whose message never comes, and 8 connections that trickle a byte at a time.

    Calls and connections that the server ends are begun again.
    """

    def background_task(self, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """See the class."""
        with ExitStack() as held:
            channel = held.enter_context(calls.open_channel())
            begin = channel.stream_unary(SUBMIT_METHOD, None, None)
            endless: list[grpc.Future[Any] | None] = [None] * LORIS_STREAMS
            tricklers = [Trickler(calls.target.address) for _ in range(LORIS_CONNECTIONS)]
            for trickler in tricklers:
                held.callback(trickler.close)
            while not calls.done.wait(LORIS_EVERY_S):
                endless = [call if call and not call.done() else _endless(begin) for call in endless]
                for trickler in tricklers:
                    trickler.send_a_byte(int(rng.integers(256)))


def _endless(begin: grpc.StreamUnaryMultiCallable[Any, Any]) -> grpc.Future[Any]:
    """A call whose request never comes. It lasts until the server ends it or the channel is closed."""
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait()
        yield from ()

    call = begin.future(nothing())
    call.add_done_callback(lambda _: over.set())
    return call


class Trickler:
    """A connection that takes its time: first with HTTP/2's preface, then with anything."""

    def __init__(self, address: str) -> None:
        """Connects with the first byte."""
        self._address = address
        self._socket: socket.socket | None = None
        self._sent = 0

    def send_a_byte(self, otherwise: int) -> None:
        """The preface's next byte, or `otherwise` (0 to 255) after it. Connects again after the server has hung up."""
        try:
            if self._socket is None:
                self._socket, self._sent = connect(self._address), 0
            following = PREFACE[self._sent] if self._sent < len(PREFACE) else otherwise
            self._socket.sendall(bytes([following]))
            self._sent += 1
        except OSError as error:
            log.debug("a trickling connection has ended: %s", error)
            self.close()

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Garbage(ProtocolAttack):
    """Never votes; twenty times a second it sends up to 4 KiB of random bytes to the port, half with a good start."""

    def background_task(self, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """See the class."""
        while not calls.done.wait(GARBAGE_EVERY_S):
            start = PREFACE if rng.integers(2) else b""
            data = start + rng.bytes(int(rng.integers(1, GARBAGE_BYTES_MAX)))
            try:
                with connect(calls.target.address) as connection:
                    connection.sendall(data)
                    connection.recv(GARBAGE_BYTES_MAX)  # so that the server reads before we hang up
                calls.attempts += 1
            except OSError as error:
                log.debug("garbage was not taken: %s", error)


class Flood(ProtocolAttack):
    """Votes honestly, and floods the server with reads: 400 a second in four threads, 128 of them held at a time.

    Most are long polls, which the server holds; the rest are Join, GetStatus and polls that are answered at once.
    """

    casts_vote = True

    def background_task(self, calls: AttackerCalls, rng: np.random.Generator) -> None:
        """See the class."""
        threads = [
            threading.Thread(target=self._flood, args=(calls, generator), name="flood")
            for generator in rng.spawn(FLOOD_THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _flood(self, calls: AttackerCalls, rng: np.random.Generator) -> None:
        in_flight = threading.BoundedSemaphore(FLOOD_IN_FLIGHT)
        with calls.open_channel() as channel:
            stub = federation_pb2_grpc.FederationStub(channel)
            while not calls.done.wait(FLOOD_EVERY_S):
                if in_flight.acquire(timeout=FLOOD_EVERY_S):
                    self._start(calls, stub, int(rng.integers(8))).add_done_callback(partial(_let_in, in_flight))

    def _start(self, calls: AttackerCalls, stub: federation_pb2_grpc.FederationStub, kind: int) -> grpc.Future[Any]:
        """Begin a call; `kind` is 0 to 7."""
        index, run_id = calls.target.index, calls.joined.run_id
        poll = pb.AwaitRoundRequest(run_id=run_id, agent=index)
        match kind:
            case 0:
                return stub.Join.future(pb.JoinRequest(agent=index), timeout=FLOOD_TIMEOUT_S)
            case 1:
                return stub.GetStatus.future(pb.GetStatusRequest(), timeout=FLOOD_TIMEOUT_S)
            case 2:
                return stub.AwaitRound.future(poll, timeout=FLOOD_TIMEOUT_S)
        poll.after_round, poll.wait_s = calls.round_number, FLOOD_TIMEOUT_S
        return stub.AwaitRound.future(poll, timeout=FLOOD_TIMEOUT_S)


def _let_in(in_flight: threading.BoundedSemaphore, call: grpc.Future[Any]) -> None:
    in_flight.release()


def connect(address: str) -> socket.socket:
    """A plain TCP connection to HOST:PORT. Raises OSError, also when the other end makes it wait."""
    host, port = parse_address(address)
    return socket.create_connection((host.strip("[]"), port), timeout=CONNECT_TIMEOUT_S)
