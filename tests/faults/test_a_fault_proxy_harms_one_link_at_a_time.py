"""The proxy passes what it gets until told otherwise, and harms the link that it is told to, and no other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fedpg_common.transport.channels import parse_address
from fedpg_lab.faults.proxy import FaultProxy
from fedpg_lab.faults.shaping import Conditions

TIMEOUT_S = 300.0
"""It ends a test that would otherwise hang."""
DEAF_AND_MUTE = Conditions(is_deaf=True, is_mute=True)


@contextmanager
def echo() -> Iterator[str]:
    """A server that sends back what it is sent; gives its address."""

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass  # the proxy resets what it ends

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def links() -> Iterator[tuple[FaultProxy, dict[int, str]]]:
    """A proxy for two agents in front of an echo."""
    proxy = FaultProxy([1, 2], seed=0)
    with echo() as address:
        addresses = proxy.start()
        proxy.point_to(address)
        try:
            yield proxy, addresses
        finally:
            proxy.close()


def connect(address: str) -> socket.socket:
    """A connection that does not wait for ever."""
    connection = socket.create_connection(parse_address(address), TIMEOUT_S)
    connection.settimeout(TIMEOUT_S)
    return connection


def receive(connection: socket.socket, count: int) -> bytes:
    """Exactly so many bytes."""
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        assert more, "the connection was closed"
        data += more
    return data


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Send, and wait for the echo."""
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    received = receive(connection, len(data))
    sender.join()
    return received


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(),
        Conditions(delay_s=0.01, jitter_s=0.01),
        Conditions(bytes_per_s=20e6),
        Conditions(loss=0.002),
    ],
    ids=["undisturbed", "latency", "bandwidth", "loss"],
)
def test_every_byte_passes(links: tuple[FaultProxy, dict[int, str]], conditions: Conditions) -> None:
    """More than the proxy keeps, so that its back pressure is at work as well."""
    proxy, addresses = links
    proxy.set_conditions(1, conditions)
    data = bytes(range(256)) * 12_000
    with connect(addresses[1]) as connection:
        assert exchange(connection, data) == data


@pytest.mark.parametrize("conditions", [DEAF_AND_MUTE, Conditions(is_mute=True), Conditions(is_deaf=True)])
def test_a_partition_holds_back_and_loses_nothing(
    links: tuple[FaultProxy, dict[int, str]], conditions: Conditions
) -> None:
    proxy, addresses = links
    with connect(addresses[1]) as cut_off, connect(addresses[2]) as other:
        assert exchange(cut_off, b"before") == b"before"
        proxy.set_conditions(1, conditions)
        cut_off.sendall(b"meanwhile")
        assert exchange(other, b"elsewhere") == b"elsewhere"
        cut_off.settimeout(0.2)
        with pytest.raises(TimeoutError):
            cut_off.recv(1)
        cut_off.settimeout(TIMEOUT_S)
        proxy.set_conditions(1, Conditions())
        assert receive(cut_off, 9) == b"meanwhile"
        assert exchange(cut_off, b"after") == b"after"


def test_a_reset_ends_connections_old_and_new_until_it_is_healed(links: tuple[FaultProxy, dict[int, str]]) -> None:
    proxy, addresses = links
    with connect(addresses[1]) as old, connect(addresses[2]) as other:
        assert exchange(old, b"before") == b"before"
        proxy.set_conditions(1, Conditions(is_reset=True))
        with pytest.raises(ConnectionResetError):
            receive(old, 1)
        with pytest.raises(ConnectionError), connect(addresses[1]) as new:  # noqa: PT012 (either step may meet it)
            new.sendall(b"x")
            receive(new, 1)
        assert exchange(other, b"elsewhere") == b"elsewhere"
    proxy.set_conditions(1, Conditions())
    with connect(addresses[1]) as new:
        assert exchange(new, b"after") == b"after"


def test_corruption_is_seen(links: tuple[FaultProxy, dict[int, str]]) -> None:
    proxy, addresses = links
    proxy.set_conditions(1, Conditions(corruption=1.0))
    with connect(addresses[1]) as connection:
        received = exchange(connection, bytes(1000))
    assert 1 <= sum(byte != 0 for byte in received) <= 2, "one wrong byte on the way there, one on the way back"


def test_a_server_that_is_gone_resets_the_connection(links: tuple[FaultProxy, dict[int, str]]) -> None:
    proxy, addresses = links
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = f"127.0.0.1:{probe.getsockname()[1]}"
    proxy.point_to(nobody)
    with pytest.raises(ConnectionError), connect(addresses[1]) as connection:  # noqa: PT012 (likewise)
        connection.sendall(b"x")
        receive(connection, 1)


def test_close_ends_what_is_open_and_may_be_repeated(links: tuple[FaultProxy, dict[int, str]]) -> None:
    proxy, addresses = links
    with connect(addresses[1]) as connection:
        assert exchange(connection, b"before") == b"before"
        proxy.close()
        with pytest.raises(ConnectionResetError):
            receive(connection, 1)
    proxy.close()
    with pytest.raises(ConnectionRefusedError):
        connect(addresses[1])
