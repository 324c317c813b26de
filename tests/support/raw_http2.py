"""A caller that speaks HTTP/2 by itself, and so may leave undone what a gRPC client does for everybody."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress
from types import TracebackType

from fedpg_common.transport.channels import TlsFiles
from google.protobuf.message import Message
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes

TIMEOUT_S = 300.0


class RawCaller:
    """One connection. Nothing is read unless `read` is called."""

    def __init__(self, address: str, tls: TlsFiles | None = None, window_bytes: int = 65_535) -> None:
        """`window_bytes` is how much of each reply the server may send before this end says that it has read it."""
        host, _, port = address.rpartition(":")
        connection: socket.socket = socket.create_connection((host, int(port)), TIMEOUT_S)
        if tls is not None:
            context = ssl.create_default_context(cafile=str(tls.authority))
            context.load_cert_chain(tls.certificate, tls.key)
            context.set_alpn_protocols(["h2"])
            connection = context.wrap_socket(connection, server_hostname=host)
        self.socket = connection
        self._lacking: dict[int, int] = {}
        """Of the requests begun, what has not been sent."""
        self._h2 = H2Connection(H2Configuration(client_side=True))
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window_bytes})
        self._flush()

    def __enter__(self) -> RawCaller:
        """The connection is open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.socket.close()

    def call(self, method: str, request: Message) -> None:
        """Make one call whose reply is not waited for."""
        stream = self._open(f"/fedpg.v1.Federation/{method}")
        data = request.SerializeToString()
        self._h2.send_data(stream, struct.pack(">BI", 0, len(data)) + data, end_stream=True)
        self._flush()

    def begin(self, method: str, size: int) -> None:
        """Begin a call with a request of that many bytes; `send_what_fits` sends them, but for the last one."""
        stream = self._open(f"/fedpg.v1.Federation/{method}")
        self._h2.send_data(stream, struct.pack(">BI", 0, size))
        self._lacking[stream] = size - 1
        self._flush()

    def begin_and_reset(self, method: str) -> None:
        """Begin calls and take them back at once."""
        for _ in range(50):
            stream = self._open(f"/fedpg.v1.Federation/{method}")
            self._h2.reset_stream(stream)
        self._flush()
        self.send_what_fits()

    def send_what_fits(self) -> int:
        """Read what has come, and send of the calls begun what fits the windows. Returns how many bytes that was."""
        self.socket.settimeout(0.01)
        try:
            if received := self.socket.recv(65_536):
                self._h2.receive_data(received)
        except TimeoutError:
            pass
        self.socket.settimeout(TIMEOUT_S)
        sent = 0
        for stream, lacking in list(self._lacking.items()):
            with suppress(StreamClosedError):
                window = self._h2.local_flow_control_window(stream)
                if part := min(window, lacking, self._h2.max_outbound_frame_size):
                    self._h2.send_data(stream, bytes(part))
                    self._lacking[stream] -= part
                    sent += part
        self._flush()
        return sent

    def _open(self, path: str) -> int:
        """Begin a call with its headers."""
        stream = self._h2.get_next_available_stream_id()
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "raw"),
            ("content-type", "application/grpc"), ("te", "trailers"),
        ]  # fmt: skip
        self._h2.send_headers(stream, headers)
        return stream

    def is_closed(self) -> bool:
        """Read everything that has come, unheeded, and tell whether the server has closed the connection."""
        self.socket.settimeout(0.01)
        try:
            while self.socket.recv(65_536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def _flush(self) -> None:
        self.socket.sendall(self._h2.data_to_send())
