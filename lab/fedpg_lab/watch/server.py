"""The page's HTTP server: read-only, for a few viewers, on loopback unless told otherwise.

The standard library's server is enough for that: it has a thread per connection, and the page has few. Nothing in it is
for the open internet; whoever shows the page beyond this machine puts a proxy with TLS and accounts before it.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fedpg_common.errors import AddressError, FedPGError, StorageError, UsageError
from fedpg_common.json_text import to_json

from fedpg_lab.watch.catalogue import HERE, Catalogue
from fedpg_lab.watch.page import SERVED_POLICY, TYPES, asset, served
from fedpg_lab.watch.run_view import Cursor
from fedpg_lab.watch.videos import Videos

FIRST_PORT, PORTS_TRIED = 8470, 20
STREAMS_MAX = 64
POLL_S, HEARTBEAT_S = 1.0, 15.0
READ_TIMEOUT_S = 60.0
FIELDS_MAX = 1000
HTML, JSON = "text/html; charset=utf-8", "application/json; charset=utf-8"
HEADERS = {
    "Content-Security-Policy": SERVED_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "Accept",
}
log = logging.getLogger(__name__)


class WatchServer(ThreadingHTTPServer):
    """Serves a catalogue of runs."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, catalogue: Catalogue, host: str, port: int) -> None:
        """Listen there; port 0 picks a free one. Raises OSError."""
        self.catalogue, self.host = catalogue, host
        self.videos = Videos()
        self.ended = threading.Event()
        self.streams = threading.BoundedSemaphore(STREAMS_MAX)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)

    def server_close(self) -> None:
        """Stop listening, and making videos."""
        super().server_close()
        self.videos.close()

    @property
    def url(self) -> str:
        """The page's address."""
        host = "localhost" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"

    def is_ours(self, host: str | None) -> bool:
        """Whether a request's Host header names this server: a page elsewhere could have its name lead here.

        Addresses and the names by which this machine was meant do; any other name does not.
        """
        try:
            name = urlsplit(f"//{host or ''}").hostname
            if name is None:
                return False
            if name in ("localhost", self.host.lower(), socket.gethostname().lower()):
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that has gone away is not an error; anything else is one of ours."""
        gone = isinstance(sys.exception(), OSError)
        log.log(logging.DEBUG if gone else logging.ERROR, "a connection ended", exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server: WatchServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fedpg", ""
    timeout = READ_TIMEOUT_S

    def do_GET(self) -> None:
        """Answer, in JSON where that is asked for."""
        if not self._is_welcome():
            return
        try:
            place = urlsplit(self.path)
            query = parse_qs(place.query, keep_blank_values=True, max_num_fields=FIELDS_MAX)
        except ValueError:
            self._fail(HTTPStatus.BAD_REQUEST, "the address cannot be read")
            return
        if place.path.startswith("/static/"):
            self._send_asset(place.path.removeprefix("/static/"))
            return
        answers: dict[str, Callable[[dict[str, list[str]]], Any]] = {
            "/": lambda _query: self.server.catalogue.home(),
            "/run": lambda query: self.server.catalogue.view(_one(query, "run", HERE)).whole(),
            "/plane": self._plane,
            "/matrix": lambda query: self.server.catalogue.matrix(_one(query, "matrix", HERE)),
            "/video": self._video,
            "/compare": self._compare,
        }
        try:
            if place.path == "/events":
                self._stream(query)
            elif place.path == "/video/file":
                folder = self.server.catalogue.view(_one(query, "run", HERE)).folder
                self._send(HTTPStatus.OK, *self.server.videos.content(folder))
            elif place.path not in answers:
                self._fail(HTTPStatus.NOT_FOUND, f"there is no page {place.path!r}: begin with /")
            elif self._wants_json(query):
                self._send(HTTPStatus.OK, JSON, to_json(answers[place.path](query)))
            else:
                self._send(HTTPStatus.OK, HTML, served())
        except StorageError as error:
            self._fail(HTTPStatus.NOT_FOUND, str(error))
        except FedPGError as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))

    def do_HEAD(self) -> None:
        """The same without content."""
        self.do_GET()

    def _is_welcome(self) -> bool:
        if self.server.is_ours(self.headers.get("Host")):
            return True
        self._fail(
            HTTPStatus.FORBIDDEN,
            "this name is not the server's: use its address, or start it with --host and that name",
        )
        return False

    def _wants_json(self, query: dict[str, list[str]]) -> bool:
        accepted = self.headers.get("Accept", "")
        return _one(query, "format", "") == "json" or ("application/json" in accepted and "text/html" not in accepted)

    def _compare(self, query: dict[str, list[str]]) -> Any:
        smooth = _one(query, "smooth", "5")
        window = int(smooth) if smooth.isascii() and smooth.isdecimal() and len(smooth) < 6 else 0
        return self.server.catalogue.compare(query.get("run", []), _one(query, "axis", "") == "honest", window)

    def _video(self, query: dict[str, list[str]]) -> Any:
        """How the run's video is; with make=yes, it is made, which no foreign page may ask for."""
        view = self.server.catalogue.view(_one(query, "run", HERE))
        if not view.has_folder:
            note = "The policy is on the server's machine: record it there, or copy the run folder."
            return {"state": "impossible", "note": note}
        folder = view.folder
        if _one(query, "make", "") != "yes" or self.command == "HEAD":
            return self.server.videos.look(folder)
        if self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise UsageError("only the page itself can ask for a video")
        return self.server.videos.make(folder)

    def _plane(self, query: dict[str, list[str]]) -> Any:
        number = _one(query, "round", "")
        if not (number.isascii() and number.isdecimal() and 0 < len(number) < 10):
            raise UsageError("round must be the number of a round that has ended")
        return self.server.catalogue.view(_one(query, "run", HERE)).plane(int(number))

    def _stream(self, query: dict[str, list[str]]) -> None:
        """Server-sent events: the whole first, then what changes. A viewer that comes back begins with the whole."""
        catalogue = self.server.catalogue
        if "run" in query:
            view, cursor = catalogue.view(_one(query, "run", HERE)), Cursor()
            look: Callable[[], Any] = lambda: view.patch(cursor)  # noqa: E731
        elif "matrix" in query:
            name = _one(query, "matrix", HERE)
            catalogue.matrix(name)  # refused before anything is sent
            look = _changes(lambda: _or_why(lambda: catalogue.matrix(name)))
        else:
            look = _changes(catalogue.home)
        if not self.server.streams.acquire(blocking=False):
            self._fail(HTTPStatus.SERVICE_UNAVAILABLE, f"{STREAMS_MAX} pages are being watched already: close some")
            return
        try:
            self._head(HTTPStatus.OK, "text/event-stream; charset=utf-8", None)
            if self.command != "HEAD":
                self._send_events(look)
        finally:
            self.server.streams.release()

    def _send_events(self, look: Callable[[], Any]) -> None:
        self.wfile.write(b"retry: 1000\n\n")
        spoke_s = time.monotonic()
        while True:
            changed = look()
            if changed:
                self.wfile.write(f"data: {to_json(changed)}\n\n".encode())
                spoke_s = time.monotonic()
            elif time.monotonic() - spoke_s > HEARTBEAT_S:
                self.wfile.write(b": still here\n\n")
                spoke_s = time.monotonic()
            is_all = not changed or changed.get("run", {}).get("is_read", True)
            if self.server.ended.wait(POLL_S if is_all else 0.0):
                return

    def _send_asset(self, name: str) -> None:
        text = asset(name)
        if text is None:
            self._fail(HTTPStatus.NOT_FOUND, f"there is no file {name!r}")
            return
        self._send(HTTPStatus.OK, TYPES[name[name.rindex(".") :]], text)

    def _fail(self, status: HTTPStatus, sentence: str) -> None:
        self.close_connection = True
        self._send(status, JSON, json.dumps({"error": sentence}))

    def _send(self, status: HTTPStatus, kind: str, answer: str | bytes) -> None:
        content = answer if isinstance(answer, bytes) else answer.encode("utf-8", "backslashreplace")
        self._head(status, kind, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(self, status: HTTPStatus, kind: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is None:
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line each."""
        log.debug(format, *args)


def open_server(catalogue: Catalogue, host: str, port: int | None) -> WatchServer:
    """A server that listens at that port, or without one at the first free one. Raises AddressError."""
    ports = [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + PORTS_TRIED), 0]
    for number in ports:
        try:
            return WatchServer(catalogue, host, number)
        except OSError as error:
            if number != ports[-1] and not isinstance(error, socket.gaierror):
                continue
            raise AddressError(f"the page cannot be served at {host}:{number}: {error.strerror or error}") from error
    raise AssertionError("the last port either serves or raises")


def _changes(make: Callable[[], Any]) -> Callable[[], Any]:
    """What `make` makes where it differs from the time before, and otherwise None."""
    sent: list[Any] = [None]

    def look() -> Any:
        found = make()
        if found == sent[0]:
            return None
        sent[0] = found
        return found

    return look


def _or_why(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it makes, or why it cannot."""
    try:
        return make()
    except FedPGError as error:
        return {"error": str(error)}


def _one(query: dict[str, list[str]], name: str, default: str) -> str:
    return query.get(name, [default])[-1]
