"""Who may keep a connection open: callers, a few each; whoever has made no call, for seconds, and few per address.

gRPC bounds the number of connections as a whole, so that somebody without a certificate could take all of them: it
tells nothing of a connection before its first call. The watch therefore looks at the process's own sockets, knows from
the calls which of them belong to whom, and shuts down the rest in time. No byte of anybody's traffic passes through it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import stat
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from fedpg_server.sparse_log import SparseLog

PENDING_MIN_S = 2.0
"""No connection is closed for want of a call before this age: a handshake takes its time on a busy machine."""
PENDING_MAX_S = 10.0
"""A connection without a call is closed at this age."""
PENDING_PER_ADDRESS = 64
"""From one address, in addition to two per agent; more of them are closed as soon as they may be."""
PER_OWNER_MAX = 4
"""Connections of one agent's certificate: it needs one, and may have lost some that the server has not missed yet."""
OTHERS_MAX = 64
"""Connections of one certificate that is not an agent's: health checks, people who look at the status."""
FLOOD_MESSAGES_PER_S = 8
"""An honest agent sends one of the largest messages per round. So many in a second, without an end, are a flood."""
FLOOD_LOOKS = 3
LOOK_EVERY_S = 1.0
LOOK_ANYWAY_EVERY = 5
"""Of that many looks, one is thorough even if no more files are open than the known connections explain."""
OPEN_FILES = 65_536
OPEN_FILES_RESERVED = 512
"""For everything but connections: the store must never want for a file."""
DESCRIPTORS = "/dev/fd"
PEERS_REMEMBERED = 20_000

TCP_INFO_BYTES = 256
RECEIVED_BYTES = slice(128, 136)
"""Where `tcpi_bytes_received` lies in Linux's struct tcp_info; empty on a kernel before 4.1, which counts as 0."""

Peer = tuple[str, int]
"""Host and port of the other end."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Whose connection it is, once a call has shown that."""

    name: str
    """The certificate's common name; without TLS the address."""
    connections_max: int
    agents: int = 1
    """How many agents may share a connection of this caller: without TLS, those of a process do."""


@dataclass
class _Connection:
    seen_s: float
    caller: Caller | None = None
    looked_s: float = 0.0
    received_bytes: int = 0
    strikes: int = 0

    def is_flooding(self, received_bytes: int, now_s: float, limit_bytes_per_s: float) -> bool:
        """Whether it has received more than it may, look after look."""
        elapsed_s = max(now_s - self.looked_s, LOOK_EVERY_S)
        is_too_fast = received_bytes - self.received_bytes > limit_bytes_per_s * elapsed_s
        self.strikes = self.strikes + 1 if is_too_fast else 0
        self.looked_s, self.received_bytes = now_s, received_bytes
        return self.strikes >= FLOOD_LOOKS


def _agents_of(connection: _Connection) -> int:
    return 1 if connection.caller is None else connection.caller.agents


class ConnectionBook:
    """Decides which connections to close. Knows no sockets and no clock; safe to use from one thread at a time."""

    def __init__(self, agents: int, message_bytes: int) -> None:
        """`agents` is K; `message_bytes` is the largest message that an honest agent sends."""
        self._pending_max = 2 * agents + PENDING_PER_ADDRESS
        self._bytes_per_s = FLOOD_MESSAGES_PER_S * message_bytes
        self._connections: dict[Peer, _Connection] = {}

    @property
    def callers(self) -> int:
        """How many known connections belong to somebody who has made a call."""
        return sum(connection.caller is not None for connection in self._connections.values())

    def called(self, peer: Peer, caller: Caller, now_s: float) -> None:
        """A call came in on a connection."""
        connection = self._connections.get(peer)
        if connection is None:
            connection = self._connections[peer] = _Connection(now_s)
        connection.caller = caller

    def review(self, connected: Mapping[Peer, int], now_s: float) -> list[Peer]:
        """Which of the connections that are open at `now_s` to close. The others that were known are forgotten.

        `connected` has the bytes that each of them has received so far.
        """
        self._connections = {peer: self._connections.get(peer) or _Connection(now_s) for peer in connected}
        by_address: defaultdict[str, list[Peer]] = defaultdict(list)
        by_caller: defaultdict[Caller, list[Peer]] = defaultdict(list)
        for peer, connection in sorted(self._connections.items(), key=lambda item: item[1].seen_s):
            if connection.caller is None:
                by_address[peer[0]].append(peer)
            else:
                by_caller[connection.caller].append(peer)
        doomed = [
            peer
            for peer, connection in self._connections.items()
            if connection.is_flooding(connected[peer], now_s, self._bytes_per_s * _agents_of(connection))
        ]
        doomed += [peer for caller, peers in by_caller.items() for peer in peers[: -caller.connections_max]]
        for peers in by_address.values():
            surplus = len(peers) - self._pending_max
            for place, peer in enumerate(peers):
                age_s = now_s - self._connections[peer].seen_s
                if age_s >= PENDING_MAX_S or (place < surplus and age_s >= PENDING_MIN_S):
                    doomed.append(peer)
        return doomed


class ConnectionWatch:
    """Looks at the connections of one port, and closes those that the book says."""

    def __init__(
        self, agents: int, message_bytes: int, on_closed: Callable[[int], None], clock: Callable[[], float]
    ) -> None:
        """As `ConnectionBook`. `on_closed` is told how many were closed at a time; `clock` gives monotonic seconds."""
        self._agents = agents
        self._book = ConnectionBook(agents, message_bytes)
        self._on_closed = on_closed
        self._clock = clock
        self._log = SparseLog(log)
        self._port: int | None = None
        self._caller = lru_cache(PEERS_REMEMBERED)(self._caller_at)

    def called(self, peer: str, common_name: str | None) -> None:
        """A call came from `peer`, as gRPC writes it, with a certificate of that name, or without one."""
        where = parse_peer(peer)
        if where is not None:
            self._book.called(where, self._caller(where[0], common_name), self._clock())

    def _caller_at(self, host: str, common_name: str | None) -> Caller:
        if common_name is None:  # without TLS, everybody at an address is one caller
            return Caller(host, PER_OWNER_MAX * self._agents + OTHERS_MAX, self._agents)
        return Caller(common_name, PER_OWNER_MAX if common_name.startswith("agent-") else OTHERS_MAX)

    def close_connection(self, peer: str) -> None:
        """Close the connection of a caller, named as gRPC writes it, if it is still there."""
        where = parse_peer(peer)
        if where is not None and self._port is not None:
            self._close({where})

    async def run(self, port: int) -> None:
        """Watch the port until cancelled."""
        self._port = port
        look = 0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            look += 1
            if look % LOOK_ANYWAY_EVERY == 0 or self._open_files() > self._book.callers + PENDING_PER_ADDRESS:
                received = {peer: received_bytes(connection) for peer, connection in connections_of(port)}
                self._close(set(self._book.review(received, self._clock())))

    def _close(self, doomed: Collection[Peer]) -> None:
        if not doomed or self._port is None:
            return
        closed = 0
        for peer, connection in connections_of(self._port):
            if peer in doomed:
                with suppress(OSError):  # it has gone meanwhile
                    connection.shutdown(socket.SHUT_RDWR)
                    closed += 1
        self._on_closed(closed)
        hosts = sorted({host for host, _ in doomed})
        self._log.write(
            logging.WARNING,
            "closed",
            f"closed {closed} connections that made no call in time, were too many, did not read or flooded, from "
            f"{', '.join(hosts[:3])}{' and others' if len(hosts) > 3 else ''}",
        )

    @staticmethod
    def _open_files() -> int:
        return len(os.listdir(DESCRIPTORS))


def connections_of(port: int) -> Iterator[tuple[Peer, socket.socket]]:
    """This process's connections at a local port: the other end, and a socket that is closed on the next step.

    The socket is a duplicate: what is done with it is done to this connection and none that takes its number meanwhile.
    """
    for descriptor in map(int, os.listdir(DESCRIPTORS)):
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            duplicate = socket.socket(fileno=os.dup(descriptor))
        except OSError:  # it has gone meanwhile
            continue
        with closing(duplicate):
            if duplicate.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            try:
                if duplicate.getsockname()[1] == port:
                    yield _plain(*duplicate.getpeername()[:2]), duplicate
            except OSError:  # listening, or gone
                continue


def received_bytes(connection: socket.socket) -> int:
    """How much a TCP connection has received so far; 0 where the system does not say."""
    if not hasattr(socket, "TCP_INFO") or sys.platform != "linux":
        return 0
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    return int.from_bytes(info[RECEIVED_BYTES], sys.byteorder)


@lru_cache(PEERS_REMEMBERED)
def parse_peer(peer: str) -> Peer | None:
    """Host and port of "ipv4:127.0.0.1:5000" or "ipv6:%5B::1%5D:5000", gRPC's form; None for anything else."""
    kind, _, rest = peer.partition(":")
    host, colon, port = unquote(rest).rpartition(":")
    if kind not in ("ipv4", "ipv6") or not colon or not port.isdecimal():
        return None
    return _plain(host.removeprefix("[").removesuffix("]"), int(port))


def _plain(host: str, port: int) -> Peer:
    """The same host in the same words, be it seen through an IPv4 or an IPv6 socket."""
    return host.removeprefix("::ffff:"), port


def allow_open_files() -> int:
    """Raise this process's limit on open files as far as it may and needs; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return OPEN_FILES if soft == resource.RLIM_INFINITY else soft
