"""Ask the server on this machine whether it serves: exit code 0 if so, 1 if not.

For a container's health check: python -m fedpg_server.healthcheck. It reads FEDPG_LISTEN and FEDPG_TLS as the server
itself does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc
from fedpg_common.errors import FedPGError
from fedpg_common.transport.channels import JOIN_MESSAGE_BYTES_MAX, open_channel, parse_address, tls_files
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 4.0


def is_serving(address: str, tls_folder: Path | None) -> bool:
    """Whether the server at `address` says SERVING. Raises FedPGError for a bad address or TLS folder."""
    with open_channel(address, JOIN_MESSAGE_BYTES_MAX, tls_files(tls_folder)) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="fedpg.v1.Federation"), timeout=TIMEOUT_S
            )
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def main() -> int:
    """The health check as a process."""
    folder = os.environ.get("FEDPG_TLS")
    try:
        _, port = parse_address(os.environ.get("FEDPG_LISTEN", "127.0.0.1:50051"))
        return 0 if is_serving(f"localhost:{port}", Path(folder) if folder else None) else 1
    except FedPGError as error:
        print(f"health check: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
