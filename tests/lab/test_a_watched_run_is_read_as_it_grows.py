"""What a viewer is sent piece by piece is what one who comes later is sent at once; and it is read only once."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg.v1 import federation_pb2 as pb
from fedpg_common.errors import UnreachableError
from fedpg_lab.watch import adapter, history, run_view
from fedpg_lab.watch.history import History, width_for
from fedpg_lab.watch.logs import LINES_MAX, ServerLog
from fedpg_lab.watch.run_view import Cursor, RunView, ServerAccess
from fedpg_server.storage.mark import mark_path
from fedpg_server.storage.store import STORE_NAME, Store
from support.lab import write_run
from support.watch import AGENTS, watched_federation, watched_round, watched_run

Patch = dict[str, Any]


def random_history(rounds: int, agents: int, seed: int) -> list[adapter.Round]:
    """Rounds in which anybody may be filtered or absent."""
    draw = random.Random(seed)
    made = []
    for number in range(1, rounds + 1):
        fates = [draw.choice("aaafb") for _ in range(agents)]
        accepted, filtered, absent = (
            tuple(agent for agent, fate in enumerate(fates, 1) if fate == kind) for kind in "afb"
        )
        record = watched_round(
            number, accepted=accepted, filtered=filtered, absent=absent, evaluation_returns=(draw.random(),),
            training_return=None if draw.random() < 0.2 else draw.random(),
        )  # fmt: skip
        made.append(adapter.round_of(record))
    return made


def columns_of(patch: Patch) -> list[Any]:
    """A patch as a list of columns."""
    if "cells" in patch:
        cells = np.frombuffer(base64.b64decode(patch["cells"]), np.uint8).reshape(-1, patch["agents"])
        return [(row.tolist(), rule) for row, rule in zip(cells, patch["rules"], strict=True)]
    figures = patch["figures"]
    return [{name: values[place] for name, values in figures.items()} for place in range(len(figures["evaluation"]))]


@pytest.mark.parametrize("section", ["curve", "grid"])
@pytest.mark.parametrize("seed", range(5))
def test_patches_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch, section: str, seed: int) -> None:
    monkeypatch.setattr(history, "CURVE_POINTS_MAX", 16)
    monkeypatch.setattr(history, "GRID_COLUMNS_MAX", 8)
    rounds, draw = random_history(150, 4, seed), random.Random(seed)
    growing, since = History(4), 0
    shown: list[Any] = []
    while since < len(rounds):
        step = draw.randint(1, 9)
        growing.add(rounds[since : since + step])
        patch: Patch = getattr(growing, section)(since)
        shown[patch["start"] :] = columns_of(patch)
        since = len(growing)
        at_once = History(4)
        at_once.add(rounds[:since])
        whole = columns_of(getattr(at_once, section)(0))
        assert len(shown) == len(whole) <= 16
        assert shown == whole


def test_columns_say_how_many_of_their_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "GRID_COLUMNS_MAX", 1)
    known = History(AGENTS)
    known.add([adapter.round_of(watched_round(number)) for number in range(1, 11)])
    ((cells, rule),) = columns_of(known.grid(0))
    assert cells == [0xF0, 0xF0, 0, 0, 3]  # agent 5 was absent in 2 of 10 rounds: 3 fifteenths
    assert rule == "R1"


def test_rare_and_nearly_always_are_not_rounded_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "GRID_COLUMNS_MAX", 1)
    known = History(2)
    rounds = [
        watched_round(n, accepted=(1,) if n > 1 else (2,), filtered=(2,) if n > 1 else (1,)) for n in range(1, 65)
    ]
    known.add([adapter.round_of(record) for record in rounds])
    ((cells, _),) = columns_of(known.grid(0))
    assert cells == [0x10, 0xE0]  # 1 and 63 of 64


@pytest.mark.parametrize(("rounds", "width"), [(0, 1), (1, 1), (512, 1), (513, 2), (1024, 2), (1025, 4), (5000, 16)])
def test_columns_are_wide_enough(rounds: int, width: int) -> None:
    assert width_for(rounds, 512) == width


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        """At zero."""
        self.now_s = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


def test_only_new_rounds_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def noted(add: Callable[..., None]) -> Callable[..., None]:
        def also(known: History, rounds: list[adapter.Round]) -> None:
            read.extend(one.number for one in rounds)
            add(known, rounds)

        return also

    monkeypatch.setattr(History, "add", noted(History.add))
    monkeypatch.setattr(adapter, "BATCH_ROUNDS", 2)
    folder, time = watched_run(tmp_path / "one", rounds=5), Time()
    view, cursor = RunView(folder, "one", ServerAccess(), time), Cursor()
    assert view.patch(cursor)["run"]["rounds"] == 5
    store = Store.open(folder / STORE_NAME)
    state = store.latest_state()[1]
    for number in (6, 7):
        store.finish_round(watched_round(number), state)
        time.now_s += run_view.REFRESH_S
        assert view.patch(cursor)["run"]["rounds"] == number
    assert view.patch(cursor) == {}
    store.close()
    assert read == [1, 2, 3, 4, 5, 6, 7]


def test_a_long_run_is_shown_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "BATCH_ROUNDS", 4)
    view, cursor = RunView(watched_run(tmp_path / "one", rounds=10), "one", ServerAccess()), Cursor()
    seen = [view.patch(cursor, patience_s=-1.0)["run"] for _ in range(4)]
    assert [(run["rounds"], run["is_read"]) for run in seen] == [(4, False), (8, False), (10, False), (10, True)]
    fresh = RunView(tmp_path / "one", "one", ServerAccess())
    fresh.patch(Cursor(), patience_s=-1.0)
    assert fresh.whole()["run"]["rounds"] == 10


def test_another_run_in_the_same_folder_starts_afresh(tmp_path: Path) -> None:
    time = Time()
    folder = watched_run(tmp_path / "one", rounds=9)
    view, cursor = RunView(folder, "one", ServerAccess(), time), Cursor()
    view.patch(cursor)
    (folder / STORE_NAME).unlink()
    time.now_s += 1
    lost = view.patch(cursor)
    assert "there is no run store" in lost["run"]["note"]
    assert lost["run"]["rounds"] == 9
    other = write_run(tmp_path / "other", watched_federation(), [watched_round(1), watched_round(2)], run_id="another")
    for path in (Path(STORE_NAME), mark_path(Path(STORE_NAME))):
        (other / path).rename(folder / path)
    time.now_s += 1
    found = view.patch(cursor)
    assert found["reset"]
    assert (found["run"]["rounds"], found["curve"]["start"], found["curve"]["rounds"]) == (2, 0, 2)


def test_the_log_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "server.log"
    path.parent.mkdir()
    log = ServerLog(tmp_path)
    log.read()
    assert (list(log.lines), log.starts, log.address) == ([], 0, None)
    path.write_text("10:00:00 INFO    server  run abc at 127.0.0.1:4711: CartPole-v1, 3 agents\n10:00:01 INFO    ser")
    log.read()
    assert (log.starts, log.address, len(log.lines)) == (1, "127.0.0.1:4711", 1)
    with path.open("a") as file:
        file.write("ver  agent 1 \x1b[31mjoined\n10:00:02 INFO    server  round 1  22/600 trajectories\n")
        file.write("10:01:00 INFO    server  run abc at 127.0.0.1:4712: CartPole-v1, 3 agents\n")
    log.read()
    log.read()
    assert (log.starts, log.address) == (2, "127.0.0.1:4712")
    assert list(log.lines)[1] == "10:00:01 INFO    server  agent 1 \\x1b[31mjoined"
    assert len(log.lines) == 3
    with path.open("a") as file:
        file.writelines(f"line {number}\n" for number in range(1000))
    log.read()
    assert (len(log.lines), log.lines[-1], log.count) == (LINES_MAX, "line 999", 1003)
    path.write_text("10:00:00 INFO    server  run def at 127.0.0.1:1: new\n")
    log.read()
    assert (log.starts, log.count) == (1, 1)


LOG = "10:00:00 INFO    server  run {} at {}: CartPole-v1, 5 agents\n"


@pytest.mark.parametrize(
    ("logged", "given", "asked"),
    [
        ("127.0.0.1:4711", None, ["127.0.0.1:4711"]),
        ("[::1]:4711", None, ["[::1]:4711"]),
        ("192.0.2.7:4711", None, []),
        (None, None, []),
        ("127.0.0.1:4711", "far.example:50051", ["far.example:50051"]),
    ],
)
def test_a_live_runs_server_is_asked_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: str | None, given: str | None, asked: list[str]
) -> None:
    seen: list[str] = []

    def fetch(address: str, *_others: object) -> pb.GetStatusReply:
        seen.append(address)
        return pb.GetStatusReply(run_id="run", phase=pb.PHASE_COLLECTING, message="waits", round=4, quorum=4, agents=[
            pb.AgentStatus(agent=agent, voted=agent != 3, last_seen_s=float(agent), note="ill" if agent == 3 else "")
            for agent in range(1, AGENTS + 1)])  # fmt: skip

    monkeypatch.setattr(adapter, "fetch_status", fetch)
    folder = watched_run(tmp_path / "one", rounds=3)
    if logged:
        (folder / "logs").mkdir()
        (folder / "logs" / "server.log").write_text(LOG.format("run", logged))
    view = RunView(folder, "one", ServerAccess(given))
    assert (view.whole()["clock"]["source"], seen) == (None, []), "nobody serves it"
    store = Store.open(folder / STORE_NAME)
    try:
        whole = RunView(folder, "one", ServerAccess(given)).whole()
    finally:
        store.close()
    assert seen == asked
    clock = whole["clock"]
    if asked:
        assert (clock["source"], clock["votes"], clock["waiting_for"], clock["quorum"]) == ("server", 4, [3], 4)
        assert (whole["agents"][2]["note"], whole["agents"][2]["last_seen_s"]) == ("ill", 3.0)
    else:
        assert (clock["source"], clock["votes"], whole["agents"][2]["note"]) == ("store", 0, None)


def test_an_answer_for_another_run_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "fetch_status", lambda *_all: pb.GetStatusReply(run_id="another"))
    assert adapter.ask_status("127.0.0.1:1", None, "run") is None
    assert adapter.ask_status("127.0.0.1:1", None, "another") is not None


def test_a_server_that_does_not_answer_leaves_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, time = [], Time()

    def fetch(address: str, *_others: object) -> pb.GetStatusReply:
        asked.append(time.now_s)
        raise UnreachableError(f"no status from {address}")

    monkeypatch.setattr(adapter, "fetch_status", fetch)
    store = Store.open(watched_run(tmp_path / "one", rounds=3) / STORE_NAME)
    try:
        view, cursor = RunView(tmp_path / "one", "one", ServerAccess("far.example:1"), time), Cursor()
        assert view.patch(cursor)["clock"]["source"] == "store"
        for _ in range(10):
            time.now_s += 1.0
            view.patch(cursor)
    finally:
        store.close()
    assert asked == [0.0, 5.0, 10.0]
