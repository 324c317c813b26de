"""Status, page and listing look at each round once, however often they are asked while a run goes on."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from fedpg_lab.runs.listing import Progress, line_of
from fedpg_lab.watch.catalogue import Catalogue
from fedpg_lab.watch.run_view import Cursor, RunView, ServerAccess
from fedpg_server.learning.records import RoundRecord, best_return, final_return
from fedpg_server.learning.totals import Totals
from fedpg_server.observers.telemetry import totals
from fedpg_server.storage.glance import glance
from fedpg_server.storage.reading import StoredRun
from fedpg_server.storage.store import STORE_NAME, Store
from support.lab import write_run
from support.protocol import idle_federation, initial_state, make_round_record, serving
from support.watch import watched_federation, watched_round

Progressed = list[tuple[int, list[float]]]


class Unread(list[RoundRecord]):
    """Records of which the last can be had, and which nobody may go over."""

    def __iter__(self) -> NoReturn:
        raise AssertionError("somebody goes over all rounds")


def some_records(count: int, seed: int) -> Iterator[RoundRecord]:
    """Rounds of different lengths, rules and returns, which are not always numbers."""
    draw, trajectories = random.Random(seed), 0
    for number in range(1, count + 1):
        trajectories += draw.randint(1, 40)
        yield make_round_record(
            number, trajectories_total=trajectories, rule=draw.choice(["R1", "R2"]),
            evaluation_returns=tuple(draw.choice([draw.gauss(0.0, 1e3), math.nan, math.inf]) for _ in range(2)),
            environment_steps={"agents": draw.randint(0, 1000), "inner": draw.randint(0, 9)},
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_totals_are_those_of_all_rounds_to_the_last_bit(seed: int) -> None:
    known, done = Totals(), list[RoundRecord]()
    for record in some_records(200, seed):
        known.add(record)
        done.append(record)
        assert (known.returns.final, known.returns.best) == (final_return(done), best_return(done))
        assert known.environment_steps == sum(sum(one.environment_steps.values()) for one in done)
        assert known.returns.rounds == len(done) == sum(known.rules.values())
    assert dict(totals(known)) == dict(totals(Totals(done)))


def test_a_status_does_not_go_over_the_rounds(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path, idle_federation(1, 4)) as door:
            for number in (0, 1, 2):
                await door.vote(1, await door.open_round(1, number))
            await door.open_round(1, 3)
            while len(door.run.records) < 3:
                await asyncio.sleep(0.005)
            door.run._recorded.records = Unread(door.run.records)
            status = await door.status()
            assert status.latest.round == 3
            await door.vote(1, await door.open_round(1, 3))
            while len(door.run.records) < 4:
                await asyncio.sleep(0.005)
            assert (await door.status()).latest.round == 4

    asyncio.run(play())


def test_the_page_does_not_go_over_the_rounds(tmp_path: Path) -> None:
    now_s = 0.0
    records = [watched_round(number) for number in range(1, 6)]
    folder = write_run(tmp_path / "run", watched_federation(), records[:3])
    view, cursor = RunView(folder, "run", ServerAccess(), lambda: now_s), Cursor()
    assert view.patch(cursor)["run"]["rounds"] == 3
    view._history.records = Unread(view._history.records)
    for record in records[3:]:
        with Store.open(folder / STORE_NAME) as store:
            store.finish_round(record, initial_state())
        now_s += 10.0
        patch = view.patch(cursor)
        assert patch["run"]["rounds"] == record.round_number
        assert patch["run"]["final"] == final_return(records[: record.round_number])
        whole = RunView(folder, "run", ServerAccess()).whole()
        assert (patch["agents"], patch["run"]) == (whole["agents"], whole["run"])


def test_the_list_of_runs_reads_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, read = 0.0, list[int]()
    progress = StoredRun.progress

    def counted(store: StoredRun, after: int = 0) -> Progressed:
        found = progress(store, after)
        read.append(len(found))
        return found

    records = [watched_round(number) for number in range(1, 40)]
    folder = write_run(tmp_path / "run", watched_federation(), records[:36])
    catalogue = Catalogue(tmp_path, ServerAccess(), lambda: now_s)
    assert catalogue.home()["runs"][0]["rounds"] == 36
    for record in records[36:]:
        with Store.open(folder / STORE_NAME) as store:
            store.finish_round(record, initial_state())
        now_s += 100.0
        with monkeypatch.context() as patch:
            patch.setattr(StoredRun, "progress", counted)
            (line,) = catalogue.home()["runs"]
        assert (line["rounds"], line["final_return"]) == (record.round_number, line_of(folder, glance).final_return)
    assert read == [2, 2, 2], "the latest that was known, and the new one"


def test_another_run_in_the_same_place_is_read_from_its_beginning(tmp_path: Path) -> None:
    known = Progress()
    records = [watched_round(number) for number in range(1, 8)]
    places = [
        write_run(tmp_path / "long", watched_federation(), records),
        write_run(tmp_path / "earlier", watched_federation(), records[:4]),
        write_run(tmp_path / "other", watched_federation(), records[:5], run_id="other"),
        write_run(tmp_path / "new", watched_federation(), [], run_id="new"),
    ]
    for place, rounds in zip(places, (7, 4, 5, 0), strict=True):
        line = line_of(place, glance, known)
        assert (line.rounds, line.final_return) == (rounds, line_of(place, glance).final_return)
