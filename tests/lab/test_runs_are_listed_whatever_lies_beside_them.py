"""`fedpg runs` lists every run with its state; damaged and foreign folders are lines, too."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from fedpg_common.descriptions import describe, federation_to_toml
from fedpg_lab.runs.folders import load_run, summarize, write_summary
from fedpg_lab.runs.listing import RunLine, list_runs
from fedpg_lab.runs.listing_table import COLUMNS, folded, listing
from fedpg_lab.runs.states import State
from fedpg_server.storage.store import STORE_NAME, Store
from support.lab import Command, write_run
from support.privileges import as_an_ordinary_user
from support.protocol import initial_state, make_round_record
from support.terminal import command_line, shown

ROUNDS = [make_round_record(n, evaluation_returns=(float(n), n + 1.0)) for n in range(1, 41)]
END = ROUNDS[-1].trajectories_total


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run in every state, and what is none."""
    done = describe("CartPole-v1", agents=4, byzantine=1, attack="sign-flipping", trajectories=END, seed=3)
    write_run(tmp_path / "a" / "done", done, ROUNDS)
    longer = describe("LunarLander-v3", agents=10, algorithm="svrpg", trajectories=END + 1)
    write_run(tmp_path / "a" / "part", longer, ROUNDS)
    write_run(tmp_path / "failed", longer, ROUNDS[:2])
    write_summary(load_run(tmp_path / "failed"), failure="the disk is full")
    write_run(tmp_path / "young", longer, [])
    for name, content in (("damaged", b"SQLite format 3\0 and no more"), ("foreign", b"hello"), ("empty", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / STORE_NAME).write_bytes(content)
    (tmp_path / "strange").mkdir()
    Store.create(tmp_path / "strange" / STORE_NAME, "run", "algorithm = 7", initial_state()).close()
    (tmp_path / "directory" / STORE_NAME).mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "notes.txt").write_text("not a run")
    return tmp_path


def listed(folder: Path, fedpg: Command, *options: str) -> dict[str, dict[str, Any]]:
    code, text, error = fedpg("runs", folder, "--format", "json", *options)
    assert (code, error) == (0, "")
    lines = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    return {Path(line["run"]).name: line for line in lines}


def test_each_run_has_its_state_and_figures(folder: Path, fedpg: Command) -> None:
    store = Store.create(folder / STORE_NAME, "run", federation_to_toml(describe("CartPole-v1")), initial_state())
    lines = listed(folder, fedpg)
    store.close()
    assert {name: line["state"] for name, line in lines.items()} == {
        folder.name: "live", "done": "finished", "part": "unfinished", "young": "unfinished", "failed": "failed",
        "damaged": "unreadable", "foreign": "unreadable", "empty": "unreadable", "strange": "unreadable",
    }  # fmt: skip
    done = lines["done"]
    summary = summarize(load_run(folder / "a" / "done"))
    assert {
        name: done[name] for name in ("final_return", "best_return", "rounds", "trajectories", "seed", "agents")
    } == {name: summary[name] for name in ("final_return", "best_return", "rounds", "trajectories", "seed", "agents")}
    assert (done["attack"], done["byzantine"], lines["part"]["attack"]) == ("sign-flipping", 1, None)
    assert lines["failed"]["note"] == "the disk is full"
    assert lines["young"]["final_return"] is None
    assert all(lines[name]["note"] for name in ("damaged", "foreign", "empty", "strange"))


def test_filters_and_order(folder: Path, fedpg: Command) -> None:
    assert set(listed(folder, fedpg, "--state", "finished", "--state", "failed")) == {"done", "failed"}
    assert set(listed(folder, fedpg, "--task", "LunarLander-v3")) == {"part", "failed", "young"}
    assert set(listed(folder, fedpg, "--algorithm", "svrpg")) == {"part", "failed", "young"}
    assert set(listed(folder, fedpg, "--attack", "sign-flipping")) == {"done"}
    by_rounds = list(listed(folder, fedpg, "--sort", "rounds", "--reverse", "--algorithm", "svrpg"))
    assert by_rounds == ["part", "failed", "young"]
    by_return = list(listed(folder, fedpg, "--sort", "final_return"))
    assert by_return[:3] == ["failed", "done", "part"], "what has no return stands last"


def test_the_table_is_for_people(folder: Path, fedpg: Command) -> None:
    code, text, error = fedpg("runs", folder)
    assert (code, error) == (0, "")
    assert str(folder / "a" / "done") in text
    assert "8 runs: 2 unfinished, 1 finished, 1 failed, 4 unreadable" in text
    code, text, _ = fedpg("runs", folder, "--task", "Nope")
    assert (code, text) == (0, "0 of 8 runs\n")


@pytest.mark.parametrize("width", [10, 30, 50, 65, 80, 100, 130, 200])
def test_any_width_shows_each_state_and_path_and_says_what_it_leaves_out(folder: Path, width: int) -> None:
    lines = list_runs(folder)
    head, *text = listing(lines, width)
    for line in lines:
        assert any(row.startswith(line.state.value) for row in text)
        assert any(row.split("  ")[-1] == line.run for row in text), "whole, to be copied"
    place = next((place for place, row in enumerate(text) if row.startswith("Not shown:")), len(text))
    not_shown = " ".join(row.strip() for row in text[place:])
    for name in COLUMNS:
        is_shown = name in head.split() or name == "run"
        assert is_shown != (name in not_shown.partition("(")[0].replace(",", " ").split()), name
    rows = [row for row in (head, *text) if not row.startswith("  ")]
    assert max(map(len, rows)) <= max(width, len("Not shown:"))


FIGURE = "runs/figure-1/CartPole-v1_fedpg-br_K10/seed-0"


def a_line(run: str, **fields: Any) -> RunLine:
    plain = RunLine(
        run=run, state=State.UNFINISHED, task="CartPole-v1", algorithm="fedpg-br", agents=10, byzantine=0, seed=0,
        rounds=300, trajectories=4990, trajectories_target=5000, final_return=498.0, best_return=500.0,
        changed="2026-11-28T10:08:26.000+00:00",
    )  # fmt: skip
    return dataclasses.replace(plain, **fields)


def test_a_run_is_one_line_of_80_columns_where_its_path_tells_the_rest() -> None:
    lines = [a_line(FIGURE), a_line(FIGURE.replace("seed-0", "seed-1"), seed=1, state=State.FINISHED)]
    head, *rows = listing(lines, 80)
    assert head.split() == ["state", "trajectories", "return", "run"]
    assert [row.split() for row in rows[:2]] == [
        ["unfinished", "4990/5000", "498.0", lines[0].run], ["finished", "4990/5000", "498.0", lines[1].run],
    ]  # fmt: skip
    longer = "runs/robustness/CartPole-v1_krum_K10_B3_boundary-split_fedpg-br"
    done = a_line(longer, state=State.FINISHED, byzantine=3, attack="boundary-split", final_return=9.0)
    head, row, *_ = listing([done], 85)
    assert head.split() == ["state", "return", "run"], "how far a finished run is goes without saying"
    assert row.split() == ["finished", "9.0", longer]


def test_what_a_path_does_not_tell_is_shown_before_the_path_stands_beside_it() -> None:
    lines = [a_line(FIGURE), a_line("runs/tried-it-out-again/what-the-other-seed-does/seed-0", task="LunarLander-v3")]
    head, *rows = listing(lines, 80)
    assert {"task", "state", "return"} <= set(head.split())
    assert [row.strip() for row in rows[1:4:2]] == [line.run for line in lines]


def test_sentences_are_broken_between_words_and_paths_are_not() -> None:
    path = "/a/path-that-is/longer-than-the-width/of-this-terminal"
    assert folded(f"{path}: the disk is full, and so on", 30) == [f"{path}:", "  the disk is full, and so on"]
    assert folded("short", 30) == ["short"]


def test_the_run_that_changed_last_stands_last(folder: Path, fedpg: Command) -> None:
    for seconds, run in enumerate(("young", "a/part", "failed", "damaged", "a/done"), start=1_700_000_000):
        os.utime(folder / run / STORE_NAME, (seconds, seconds))
    (folder / "unsearchable").mkdir(0)
    with as_an_ordinary_user():
        order = listed(folder, fedpg)
    (folder / "unsearchable").chmod(0o755)
    known = [name for name in order if name in ("young", "part", "failed", "damaged", "done")]
    assert known == ["young", "part", "failed", "damaged", "done"]
    assert order["young"]["changed"] == "2023-11-14T22:13:20.000+00:00"
    assert list(order)[-1] == "unsearchable", "what has no time stands last"
    newest_first = list(listed(folder, fedpg, "--reverse"))
    assert [name for name in newest_first if name in known] == known[::-1]


def test_numbers_in_paths_are_sorted_as_numbers(tmp_path: Path, fedpg: Command) -> None:
    for seed in (10, 9, 2):
        write_run(tmp_path / f"seed-{seed}", describe("CartPole-v1", seed=seed), [])
        os.utime(tmp_path / f"seed-{seed}" / STORE_NAME, (1, 1))
    assert list(listed(tmp_path, fedpg, "--sort", "run")) == ["seed-2", "seed-9", "seed-10"]
    assert list(listed(tmp_path, fedpg)) == ["seed-2", "seed-9", "seed-10"], "changed at the same time"


def test_a_pipe_gets_every_column_and_each_run_in_one_line(folder: Path, fedpg: Command) -> None:
    _, text, _ = fedpg("runs", folder)
    head, *rows = text.splitlines()
    assert head.split() == list(COLUMNS)
    assert "Not shown" not in text
    assert sum(row.endswith(str(folder / "a" / "done")) for row in rows) == 1


def test_a_folder_without_runs_says_how_to_make_one(tmp_path: Path, fedpg: Command) -> None:
    code, text, _ = fedpg("runs", tmp_path)
    assert (code, text) == (0, f"0 runs: fedpg train --out {tmp_path} makes one there\n")


def test_no_width_hides_anything_in_a_terminal(folder: Path) -> None:
    for columns in (60, 80, 200):
        screen = shown(command_line("fedpg", "runs", folder), columns=columns)
        text = "".join(line.ljust(columns) for line in screen.screen)
        assert screen.code == 0
        assert all(str(line.run) in text for line in list_runs(folder))
        assert "8 runs: 2 unfinished, 1 finished, 1 failed, 4 unreadable" in text


def test_a_folder_that_cannot_be_searched_is_a_line(folder: Path, fedpg: Command) -> None:
    (folder / "a").chmod(0)
    with as_an_ordinary_user():
        lines = listed(folder, fedpg)
    (folder / "a").chmod(0o755)
    assert lines["a"]["state"] == "unreadable"
    assert "Permission denied" in lines["a"]["note"]
    assert "failed" in lines


def test_a_return_that_is_not_a_number_ends_no_listing(tmp_path: Path, fedpg: Command) -> None:
    rounds = [make_round_record(1, evaluation_returns=(math.nan,)), make_round_record(2, evaluation_returns=(7.0,))]
    write_run(tmp_path / "run", describe("CartPole-v1", agents=4, trajectories=32), rounds)
    (line,) = listed(tmp_path, fedpg).values()
    assert (line["best_return"], line["state"]) == (7.0, "finished")


def test_nothing_reads_whole_records(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_store: Store) -> None:
        raise AssertionError("300 runs would take long")

    monkeypatch.setattr(Store, "records", refuse)
    assert any(line.state is State.FINISHED for line in list_runs(folder))
