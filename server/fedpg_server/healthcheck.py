"""Ask the server on this machine whether it serves: exit code 0 if so, 1 if not.

For a container's health check: python -m fedpg_server.healthcheck [FILE]. It reads FEDPG_LISTEN and FEDPG_TLS as the
server itself does.

Agents' containers start once the server's is healthy, so that the first checks have to come quickly. Docker has an
interval of its own for these (`start_interval`) only from Engine 25 on: before, a short `interval` is the only way, and
a check costs a tenth of a second of processor time. So a check that succeeds leaves FILE, and one that finds it waits
before it asks. FILE has to be gone when the container starts again: /tmp, where that is a tmpfs, is a place for it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fedpg_common.errors import FedPGError

TIMEOUT_S = 4.0
PAUSE_S = 8.0
"""What a check waits once the server has been healthy."""


def is_serving(address: str, tls_folder: Path | None) -> bool:
    """Whether the server at `address` says SERVING. Raises FedPGError for a bad address or TLS folder."""
    import grpc  # here: while a check waits, it needs no more than the interpreter
    from fedpg_common.transport.channels import JOIN_MESSAGE_BYTES_MAX, open_channel, tls_files
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with open_channel(address, JOIN_MESSAGE_BYTES_MAX, tls_files(tls_folder)) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="fedpg.v1.Federation"), timeout=TIMEOUT_S
            )
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def main(was_healthy: Path | None = None, sleep: Callable[[float], None] = time.sleep) -> int:
    """The health check as a process; `was_healthy` is FILE."""
    if was_healthy and was_healthy.exists():
        sleep(PAUSE_S)
    from fedpg_common.transport.channels import parse_address

    folder = os.environ.get("FEDPG_TLS")
    try:
        _, port = parse_address(os.environ.get("FEDPG_LISTEN", "127.0.0.1:50051"))
        is_healthy = is_serving(f"localhost:{port}", Path(folder) if folder else None)
    except FedPGError as error:
        print(f"health check: {error}", file=sys.stderr)
        return 1
    if is_healthy and was_healthy:
        was_healthy.touch()
    return 0 if is_healthy else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
