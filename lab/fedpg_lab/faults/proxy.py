"""A TCP proxy on loopback with a bad link for each agent: one port an agent, all of them to the same server.

What a partition or a black hole swallows arrives once it has healed, as TCP would then send it again. New connections
are still accepted in a partition, since the system does that before the proxy hears of it, but nothing passes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from fedpg_common.errors import AddressError
from fedpg_common.transport.channels import parse_address

from fedpg_lab.faults.shaping import Conditions, Shaper

READ_BYTES = 16 * 1024
HELD_BYTES_MAX = 1024 * 1024
"""What a connection keeps in one direction before it stops reading, so that the sender has to wait."""
HOST = "127.0.0.1"
NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER: closing a connection resets it."""


@dataclass
class _Link:
    """An agent's link."""

    agent: int
    conditions: Conditions = field(default_factory=Conditions)
    address: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def change(self, conditions: Conditions) -> None:
        """Let everything that waits look again."""
        self.conditions = conditions
        self.changed.set()
        self.changed = asyncio.Event()
        if conditions.is_reset:
            for writer in list(self.writers):
                _reset(writer)


class FaultProxy:
    """Proxies in a thread of their own. The methods may be called from any other thread."""

    def __init__(self, agents: Sequence[int], seed: int) -> None:
        """A link for each of the agents. All that is drawn follows from the seed, link by link."""
        self._seed = seed
        self._links = {agent: _Link(agent) for agent in agents}
        self._target = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []

    def start(self) -> dict[int, str]:
        """Listen; gives each agent's address. Raises AddressError."""
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        except OSError as error:
            raise AddressError(f"the fault proxy cannot listen on {HOST}: {error.strerror}") from error
        return {agent: link.address for agent, link in self._links.items()}

    def point_to(self, server: str) -> None:
        """Forward new connections to that address (HOST:PORT) from now on."""
        self._target = server

    def set_conditions(self, agent: int, conditions: Conditions) -> None:
        """Change a link; holds for open connections, too, from the next byte on."""
        asyncio.run_coroutine_threadsafe(self._change(agent, conditions), self._loop).result()

    def close(self) -> None:
        """Reset what is open and stop listening."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        if not self._loop.is_closed():
            self._loop.close()

    async def _listen(self) -> None:
        for link in self._links.values():
            server = await asyncio.start_server(self._handler(link), HOST, 0)
            self._servers.append(server)
            link.address = f"{HOST}:{server.sockets[0].getsockname()[1]}"

    def _handler(self, link: _Link) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._serve(link, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return connected

    async def _change(self, agent: int, conditions: Conditions) -> None:
        self._links[agent].change(conditions)

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either end closes it or a fault resets it."""
        link.connections += 1
        streams = np.random.default_rng([self._seed, link.agent, link.connections]).spawn(2)
        link.writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            if link.conditions.is_reset:
                return
            server_reader, upstream = await asyncio.open_connection(*parse_address(self._target))
            link.writers.add(upstream)
            pumps = [
                self._loop.create_task(_pump(link, reader, upstream, Shaper(streams[0]), to_server=True)),
                self._loop.create_task(_pump(link, server_reader, writer, Shaper(streams[1]), to_server=False)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # the server is down: the agent's connection is reset below, which is what it would see
        finally:
            for end in filter(None, (writer, upstream)):
                link.writers.discard(end)
                _reset(end)


async def _pump(
    link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, shaper: Shaper, *, to_server: bool
) -> None:
    """Carry bytes one way until the sender closes or a connection breaks."""
    under_way: deque[tuple[float, bytes]] = deque()
    arrived, taken = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    held_bytes = 0

    async def read() -> None:
        nonlocal held_bytes
        while data := await reader.read(READ_BYTES):
            segments = shaper.admit(data, loop.time(), link.conditions)
            under_way.extend(segments)
            held_bytes += len(data)
            arrived.set()
            while held_bytes > HELD_BYTES_MAX:
                taken.clear()
                await taken.wait()

    async def write() -> None:
        nonlocal held_bytes
        while True:
            while not under_way:
                arrived.clear()
                await arrived.wait()
            at_s, segment = under_way[0]
            if at_s > loop.time():
                await asyncio.sleep(at_s - loop.time())
            while link.conditions.is_mute if to_server else link.conditions.is_deaf:
                await link.changed.wait()
            under_way.popleft()
            held_bytes -= len(segment)
            taken.set()
            writer.write(segment)
            await writer.drain()

    writing = loop.create_task(write())
    try:
        await read()
        while under_way and not writing.done():
            taken.clear()
            await asyncio.wait([writing, loop.create_task(taken.wait())], return_when=asyncio.FIRST_COMPLETED)
    except OSError:
        pass  # a connection broke: both ends are closed by the caller
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await writing


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, as a firewall does."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    writer.transport.abort()
