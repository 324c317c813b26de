"""Runs to be watched, and the page's server on loopback."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedpg_common.descriptions import describe
from fedpg_common.federation import Federation
from fedpg_lab.watch.catalogue import Catalogue
from fedpg_lab.watch.run_view import ServerAccess
from fedpg_lab.watch.server import WatchServer, open_server
from fedpg_server.learning.records import RoundRecord
from support.lab import write_run
from support.protocol import make_round_record

AGENTS, LIARS = 5, 2


def watched_federation(seed: int = 0, algorithm: str = "fedpg-br", rounds: int = 20) -> Federation:
    """Five agents, two of which are described as attackers, for that many rounds."""
    return describe(
        "CartPole-v1", agents=AGENTS, byzantine=LIARS, attack="sign-flipping", algorithm=algorithm, seed=seed,
        trajectories=16 * rounds,
    )  # fmt: skip


def watched_round(number: int, **changes: Any) -> RoundRecord:
    """A round in which both attackers are filtered and the last agent is absent every fifth time."""
    absent = (5,) if number % 5 == 0 else ()
    values: dict[str, Any] = {
        "accepted": tuple(agent for agent in (3, 4, 5) if agent not in absent), "filtered": (1, 2), "absent": absent,
        "evaluation_returns": (10.0 * number, 10.0 * number), "rule": "R1" if number % 3 else "R2",
    }  # fmt: skip
    return make_round_record(number, **{**values, **changes})


def watched_run(folder: Path, rounds: int = 20, **described: Any) -> Path:
    """A run folder with so many rounds of what `described` describes."""
    return write_run(folder, watched_federation(**described), [watched_round(n) for n in range(1, rounds + 1)])


@contextmanager
def page_of(folder: Path, host: str = "127.0.0.1", port: int = 0) -> Iterator[WatchServer]:
    """The page's server, serving."""
    server = open_server(Catalogue(folder, ServerAccess()), host, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def ask(server: WatchServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=300)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def ask_json(server: WatchServer, path: str) -> Any:
    """The content of an answer in JSON."""
    status, _, content = ask(server, path, Accept="application/json")
    assert status == 200, content
    return json.loads(content)
