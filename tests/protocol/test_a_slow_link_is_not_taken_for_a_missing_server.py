"""Whoever makes a single call over a slow link, as `fedpg status` does, waits for the handshakes and is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fedpg_common.transport.channels import CONNECT_TIMEOUT_MS
from fedpg_lab.local.status import fetch_status
from support.protocol import CALL_TIMEOUT_S, idle_federation, serving
from support.tls_files import client_credentials, make_identity, write_files

DELAY_S = 0.5
"""Before the server's first byte; a handshake across an ocean takes as long."""


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything that comes from one end to the other."""
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def slow_link_to(address: str) -> AsyncIterator[str]:
    """An address behind which the server answers late; gives it."""
    host, _, port = address.rpartition(":")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(DELAY_S)
        their_reader, their_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pass_on(reader, their_writer), pass_on(their_reader, writer), return_exceptions=True)

    link = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{link.sockets[0].getsockname()[1]}"
    finally:
        link.close()


def test_the_status_comes_over_a_slow_link(tmp_path: Path) -> None:
    authority = make_identity("authority")
    operator = make_identity("operator", authority)
    tls = write_files(tmp_path / "operator", authority, operator)

    async def play() -> None:
        files = write_files(tmp_path / "server", authority, make_identity("server", authority))
        own = client_credentials(authority, operator)
        async with serving(tmp_path, idle_federation(2, 1), files, own) as door, slow_link_to(door.address) as address:
            status = await asyncio.to_thread(fetch_status, address, tls, CALL_TIMEOUT_S)
            assert status.run_id == door.run.run_id

    assert 2 * DELAY_S < CONNECT_TIMEOUT_MS / 1000
    asyncio.run(play())
