"""The server's status as a stream of lines, printed by a container that shares the server's network namespace.

It asks over loopback, where no fault of the network reaches, and is not part of the server, so that it outlives it. Run
as `python -m fedpg_lab.faults.docker.status_stream` with FEDPG_SERVER and FEDPG_TLS, as `fedpg status` takes them.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from pathlib import Path

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.errors import RefusedError, UnreachableError
from fedpg_common.transport.channels import TlsFiles, tls_files
from google.protobuf.message import DecodeError

from fedpg_lab.local.status import fetch_status

EVERY_S = 0.2
TIMEOUT_S = 1.0
NO_ANSWER = "-"


def line_of(server: str, tls: TlsFiles | None) -> str:
    """The status of the run at `server` as one line of text."""
    try:
        return base64.b64encode(fetch_status(server, tls, TIMEOUT_S).SerializeToString()).decode("ascii")
    except (UnreachableError, RefusedError):
        return NO_ANSWER  # the server is down, paused or coming back


def read_line(line: str) -> pb.GetStatusReply | None:
    """The status in a line; None for one that says that there was no answer, or holds no status."""
    try:
        return pb.GetStatusReply.FromString(base64.b64decode(line.strip(), validate=True)) if line.strip() else None
    except (binascii.Error, ValueError, DecodeError):
        return None


def main() -> None:
    """Print lines until somebody ends it."""
    folder = os.environ.get("FEDPG_TLS")
    tls = tls_files(Path(folder) if folder else None)
    while True:
        print(line_of(os.environ.get("FEDPG_SERVER", "localhost:50051"), tls), flush=True)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
