"""An outsider without a certificate that keeps thousands of connections open: `python connection_flood.py PORT N S`.

Half of them say nothing, the other half begin a TLS handshake and leave it there. What the server closes is opened
again. It prints "open" once all N are, and how many it has opened in all when its S seconds are over.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import sys
import time
from contextlib import suppress


def client_hello() -> bytes:
    """The first message of a TLS handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    return sent.read()


def flood(port: int, count: int, seconds: float) -> int:
    """Keep `count` connections open for that long; returns how many were opened."""
    hello, opened = client_hello(), 0
    ends_s = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        while time.monotonic() < ends_s:
            while len(selector.get_map()) < count and time.monotonic() < ends_s:
                with suppress(OSError):
                    connection = socket.create_connection(("127.0.0.1", port), 1.0)
                    if opened % 2:
                        connection.sendall(hello)
                    connection.setblocking(False)
                    selector.register(connection, selectors.EVENT_READ)
                    opened += 1
                    if opened == count:
                        print("open", flush=True)
            for key, _ in selector.select(0.05):
                connection = key.fileobj  # type: ignore[assignment]
                try:
                    if connection.recv(65536):
                        continue  # the server's part of the handshake
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                selector.unregister(connection)
                connection.close()
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
    return opened


if __name__ == "__main__":
    print(flood(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])), flush=True)
