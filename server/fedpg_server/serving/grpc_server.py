"""The port: the service behind its gate, with the standard health service and reflection beside it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

import grpc
from fedpg.v1 import federation_pb2, federation_pb2_grpc
from fedpg_common.errors import AddressError
from fedpg_common.transport import wire
from fedpg_common.transport.channels import TlsFiles, server_credentials, server_options
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fedpg_server.serving.connections import OPEN_FILES_RESERVED, ConnectionWatch, allow_open_files
from fedpg_server.serving.grpc_log import SparseGrpcLog
from fedpg_server.serving.request_guard import ARRIVAL_MAX_S, Gate
from fedpg_server.serving.revocation import RevocationList
from fedpg_server.serving.service import FederationService

SERVICE_NAME = federation_pb2.DESCRIPTOR.services_by_name["Federation"].full_name
SMALL_ROUND_BYTES = 32 * 1024
"""With vectors up to this size a round is handed to gRPC like any small reply, which takes it at once."""


class HealthMonitor(Protocol):
    """The asyncio servicer of the standard health service."""

    async def set(self, service: str, status: int) -> None:
        """Say how a service is."""

    async def enter_graceful_shutdown(self) -> None:
        """Say NOT_SERVING from now on."""


@dataclass(frozen=True)
class Endpoint:
    """A port that is listened on."""

    address: str
    """HOST:PORT as bound."""
    monitor: HealthMonitor
    _server: grpc.aio.Server
    _gate: Gate
    _watching: asyncio.Future[list[None]]
    _grpc_log: SparseGrpcLog

    async def stop(self, grace_s: float | None) -> None:
        """Take no more calls, give those that go on `grace_s` to end, and close the port. May be called again."""
        self._gate.close()
        await self._server.stop(grace_s)
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self._grpc_log.stop()


async def start_listening(
    address: str,
    tls: TlsFiles | None,
    service: FederationService,
    message_bytes: int,
    agents: int,
    arrival_max_s: float = ARRIVAL_MAX_S,
) -> Endpoint:
    """Listen there for calls to the service, with NOT_SERVING for now. Raises AddressError, UsageError."""
    revoked = RevocationList(tls) if tls else None
    watch = ConnectionWatch(agents, message_bytes, service.count_closed_connections, time.monotonic)
    is_round_large = message_bytes > SMALL_ROUND_BYTES + wire.MESSAGE_SLACK_BYTES
    large_replies = ["GetStatus", *(["AwaitRound"] if is_round_large else [])]
    gate = Gate(
        SERVICE_NAME,
        service.count_unreadable,
        watch.called,
        arrival_max_s,
        large_replies,
        watch.close_connection,
        parsers={"SubmitUpdate": wire.read_submission},
        is_revoked=revoked.has if revoked is not None else lambda _certificate: False,
        on_revoked=service.note_revoked,
        has_certificates=tls is not None,
    )
    options = server_options(
        wire.OVERSIZE_FACTOR * message_bytes,
        wire.status_bytes_max(agents),
        connections_max=allow_open_files() - OPEN_FILES_RESERVED,
    )
    server = grpc.aio.server(interceptors=[gate], options=options)
    federation_pb2_grpc.add_FederationServicer_to_server(service, server)
    monitor: HealthMonitor = health.aio.HealthServicer()  # type: ignore[attr-defined]  # unknown to the type stubs
    await monitor.set(SERVICE_NAME, health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(monitor, server)
    reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials(tls))
    except RuntimeError as error:
        raise AddressError(f"cannot listen on {address}: is the port in use, or not yours to open?") from error
    grpc_log = SparseGrpcLog()
    grpc_log.start()
    await server.start()
    following = [revoked.follow()] if revoked is not None else []
    watching = asyncio.gather(watch.run(port), *following)
    return Endpoint(f"{address.rpartition(':')[0]}:{port}", monitor, server, gate, watching, grpc_log)
