"""A run's closed rounds are told to its operator who asks for them, whole, and to nobody else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.descriptions import federation_from_toml
from fedpg_common.errors import RefusedError, StorageError
from fedpg_common.transport import wire
from fedpg_lab.local.status import fetch_status
from fedpg_lab.watch import remote
from fedpg_lab.watch.remote import RemoteCatalogue
from fedpg_lab.watch.run_view import ServerAccess
from fedpg_server.learning.records import RoundRecord
from support.protocol import CALL_TIMEOUT_S, idle_federation, serving
from support.tls_files import client_credentials, make_identity, write_files

AUTHORITY = make_identity("authority")
NAMES = ("server", "operator", "agent-1", "mallory")
IDENTITIES = {name: make_identity(name, AUTHORITY) for name in NAMES}
ROUNDS = 5


def after_some_rounds(folder: Path, look: Any) -> Any:
    """What `look(address, files)` finds after four rounds of one agent, asked in a thread while the server serves."""
    files = {name: write_files(folder / name, AUTHORITY, IDENTITIES[name]) for name in NAMES}

    async def play() -> Any:
        client = client_credentials(AUTHORITY, IDENTITIES["agent-1"])
        async with serving(folder, idle_federation(1, ROUNDS), files["server"], client) as door:
            for number in range(ROUNDS - 1):
                await door.vote(1, await door.open_round(1, number))
            await door.open_round(1, ROUNDS - 1)
            while len(door.run.records) < ROUNDS - 1:  # the last one is evaluated while the next round is open
                await asyncio.sleep(0.005)
            return await asyncio.to_thread(look, door.address, files)

    return asyncio.run(play())


def test_the_operator_gets_every_round_from_the_one_that_is_asked_for(tmp_path: Path) -> None:
    def look(address: str, files: Any) -> list[pb.GetStatusReply]:
        return [fetch_status(address, files["operator"], CALL_TIMEOUT_S, rounds_after=after) for after in (0, 3, 4, 99)]

    whole, rest, none, beyond = after_some_rounds(tmp_path, look)
    numbers = [RoundRecord.from_json(text).round_number for text in whole.records_json]
    assert numbers == [1, 2, 3, 4]
    assert list(rest.records_json) == list(whole.records_json)[3:]
    assert not none.records_json
    assert not beyond.records_json
    assert federation_from_toml(whole.federation_toml.decode(), "the answer").agents == 1


@pytest.mark.parametrize("name", ["agent-1", "mallory"])
def test_nobody_else_gets_any(tmp_path: Path, name: str) -> None:
    def look(address: str, files: Any) -> pb.GetStatusReply:
        return fetch_status(address, files[name], CALL_TIMEOUT_S, rounds_after=0)

    told = after_some_rounds(tmp_path, look)
    assert not told.records_json
    assert not told.federation_toml


def test_a_status_that_asks_for_no_rounds_brings_none(tmp_path: Path) -> None:
    told = after_some_rounds(tmp_path, lambda address, files: fetch_status(address, files["operator"], CALL_TIMEOUT_S))
    assert not told.records_json
    assert not told.federation_toml


def test_an_answer_is_bounded_and_the_page_asks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "RECORDS_BYTES", 1)  # a round an answer

    def look(address: str, files: Any) -> tuple[dict[str, Any], dict[str, Any], Any]:
        catalogue = RemoteCatalogue(address, ServerAccess(address, files["operator"]))
        view = catalogue.view(".")
        return catalogue.home(), view.whole(), view.plane(2)

    home, whole, _plane = after_some_rounds(tmp_path, look)
    (line,) = home["runs"]
    assert (line["run"], line["state"], line["rounds"], line["agents"]) == (".", "live", 4, 1)
    assert whole["run"]["rounds"] == 4
    assert whole["clock"]["source"] == "server"
    assert len(whole["curve"]["figures"]["evaluation"]) == 4


def test_the_page_says_that_it_needs_the_operators_certificate(tmp_path: Path) -> None:
    def look(address: str, files: Any) -> None:
        catalogue = RemoteCatalogue(address, ServerAccess(address, files["agent-1"]))
        with pytest.raises(RefusedError, match="operator of `fedpg certs`"):
            catalogue.remote.check()
        assert "operator" in catalogue.home()["runs"][0]["note"]

    after_some_rounds(tmp_path, look)


def test_a_server_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.2)
    catalogue = RemoteCatalogue("127.0.0.1:1", ServerAccess("127.0.0.1:1"))
    catalogue.remote.check()
    (line,) = catalogue.home()["runs"]
    assert line["state"] == "unreadable"
    assert "no status from 127.0.0.1:1" in line["note"]
    for ask in (lambda: catalogue.view("other"), lambda: catalogue.matrix(".")):
        with pytest.raises(StorageError):
            ask()
